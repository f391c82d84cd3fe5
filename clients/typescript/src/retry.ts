/**
 * When to try again: a pure decision; the caller sleeps.
 *
 * Full jitter over an exponential bound, so that a thousand clients cut off together do not come
 * back together. Knows neither gRPC nor a clock; randomness is an argument.
 */

import { Busy, type LetterlockError, ServerError, Unavailable } from "./errors.js";

/**
 * How often a bug on the other side is met in a row before it is told: a process that is being
 * restarted answers so for a moment, a real bug for ever.
 */
export const SERVER_ERROR_ATTEMPTS = 5;

/** How long to wait before a further attempt; all times in seconds. */
export interface RetryPolicy {
  /** The bound of the first wait. Not set: 0.1. */
  readonly first?: number;
  /** The bound of every wait. Not set: 10. */
  readonly most?: number;
  /** By how much the bound grows. Not set: 2. */
  readonly factor?: number;
  /** Failures in a row that are taken. Not set: no end for streams, five for single calls. */
  readonly attempts?: number;
}

/** Counts the failures of one connection or call, and says how long to wait. */
export class Backoff {
  readonly #policy: RetryPolicy;
  readonly #random: () => number;
  #failures = 0;

  /** `random` gives a number from 0 to 1. */
  constructor(policy: RetryPolicy, random: () => number) {
    this.#policy = policy;
    this.#random = random;
  }

  /** There was progress: the next failure is a first one. */
  succeeded(): void {
    this.#failures = 0;
  }

  /**
   * Seconds to wait before trying again: at least a retry time named by the other side. Throws
   * `error` where another try is no use.
   */
  after(error: LetterlockError): number {
    this.#failures += 1;
    if (!worthRepeating(error) || this.#exhausted(error)) throw error;
    return (error.retryAfter ?? 0) + this.#random() * this.#bound();
  }

  #bound(): number {
    const { first = 0.1, most = 10, factor = 2 } = this.#policy;
    return Math.min(most, first * factor ** Math.min(this.#failures - 1, 32));
  }

  #exhausted(error: LetterlockError): boolean {
    const attempts = this.#policy.attempts ?? Number.POSITIVE_INFINITY;
    const most = error instanceof ServerError ? SERVER_ERROR_ATTEMPTS : attempts;
    return this.#failures >= Math.min(most, attempts);
  }
}

function worthRepeating(error: LetterlockError): boolean {
  return error instanceof Unavailable || error instanceof Busy || error instanceof ServerError;
}
