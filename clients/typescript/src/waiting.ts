/**
 * How one piece of a client waits for another: conditions, turns, pauses that end early.
 *
 * Nothing here keeps a value. A waiter looks at its condition, waits, and looks again; between a look
 * and the wait nothing else runs, so no wake-up is lost.
 */

/** Seconds to pause; ends early, without an error, when `stop` is aborted. */
export type Sleep = (seconds: number, stop: AbortSignal) => Promise<void>;

/** Seconds of a clock that only goes forward. */
export type Clock = () => number;

/** Wakes whoever waits for something to change. */
export class Signal {
  readonly #waiters = new Set<() => void>();

  /** Something has changed. */
  notify(): void {
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }

  /** The next change. Rejects with the reason of `stop` when that is aborted first. */
  async changed(stop?: AbortSignal): Promise<void> {
    stop?.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const wake = () => {
        stop?.removeEventListener("abort", give);
        resolve();
      };
      const give = () => {
        this.#waiters.delete(wake);
        reject(stop?.reason);
      };
      this.#waiters.add(wake);
      stop?.addEventListener("abort", give, { once: true });
    });
  }
}

/** One at a time, in the order of asking. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Run `work` when everything asked for before has ended. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => undefined); // a failure is the asker's own, not the next one's
    return done;
  }
}

/** The Clock of real time. */
export const monotonic: Clock = () => performance.now() / 1000;

/** The Sleep of real time. */
export const sleep: Sleep = (seconds, stop) =>
  new Promise((resolve) => {
    if (stop.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      stop.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    stop.addEventListener("abort", end);
  });

/** Whether `task` ends within so many seconds. */
export async function endsWithin(task: Promise<unknown>, seconds: number): Promise<boolean> {
  const enough = new AbortController();
  const ended = task.then(
    () => true,
    () => true,
  );
  try {
    return await Promise.race([ended, sleep(seconds, enough.signal).then(() => false)]);
  } finally {
    enough.abort();
  }
}
