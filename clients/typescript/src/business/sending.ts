/**
 * Which messages of a Send stream are unanswered, and which of them to write next: pure.
 *
 *     admitted ──take──▶ written ──answer──▶ gone
 *         ▲                 │
 *         └──── lost ───────┘   the stream ended: everything unanswered is written again, in the
 *                               order of its admission, under the same keys
 *
 * Knows no stream, no clock, no task. A message is in here until the gateway has answered it.
 */

import { InvalidRequest } from "../errors.js";
import { ErrorReason } from "../generated/letterlock/v1/errors_pb.js";
import type { OutgoingMessage, SendResult } from "../generated/letterlock/v1/messaging_pb.js";
import { sizeOf } from "./outgoing.js";

/** The contract's limit of one batch. */
export const MAX_BATCH_MESSAGES = 256;

/** Below the contract's 4 MiB by more than one message and the framing. */
export const MAX_BATCH_BYTES = 3 * 1024 * 1024;

/** The unanswered messages of one sender, by idempotency key. */
export class SendWindow {
  /** How many messages may be unanswered at a time. */
  limit: number;
  readonly #unanswered = new Map<string, OutgoingMessage>();
  #toWrite = new Set<string>();

  constructor(limit: number) {
    this.limit = limit;
  }

  /** How many messages are unanswered. */
  get size(): number {
    return this.#unanswered.size;
  }

  /**
   * Take a message in. Throws InvalidRequest when its key is waiting for an answer already: two
   * answers under one key could not be told apart.
   */
  admit(message: OutgoingMessage): void {
    const key = message.idempotencyKey;
    if (this.#unanswered.has(key)) {
      const limit = "unique among unanswered messages";
      throw new InvalidRequest("key is in use", { field: "idempotency_key", limit });
    }
    this.#unanswered.set(key, message);
    this.#toWrite.add(key);
  }

  /** The next batch to write: in order of admission, within both limits of a batch. */
  take(maxMessages: number): OutgoingMessage[] {
    const batch: OutgoingMessage[] = [];
    let size = 0;
    for (const key of this.#toWrite) {
      const message = this.#unanswered.get(key);
      if (message === undefined || batch.length >= Math.min(maxMessages, MAX_BATCH_MESSAGES)) break;
      size += sizeOf(message);
      if (batch.length > 0 && size > MAX_BATCH_BYTES) break;
      batch.push(message);
      this.#toWrite.delete(key);
    }
    return batch;
  }

  /**
   * Note an answer; true when the caller is to hear of it.
   *
   * A refusal because the process is draining is not the end of a message: it stays, and is written
   * again on the next stream. An answer to an unknown key is ignored.
   */
  answer({ idempotencyKey, outcome }: SendResult): boolean {
    if (outcome.case === "refused" && outcome.value.reason === ErrorReason.DRAINING) return false;
    this.#toWrite.delete(idempotencyKey);
    return this.#unanswered.delete(idempotencyKey);
  }

  /** The stream has ended: everything unanswered is to be written again. */
  lost(): void {
    this.#toWrite = new Set(this.#unanswered.keys());
  }
}
