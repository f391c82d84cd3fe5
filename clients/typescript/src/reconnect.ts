/**
 * Repeats calls and streams until they are done: the loops that every client shares.
 *
 * Knows how a stream ends and how to wait; knows nothing of what it carries.
 */

import type { Stream } from "./channel.js";
import { LetterlockError, Unavailable } from "./errors.js";
import type { Backoff } from "./retry.js";
import type { Sleep } from "./waiting.js";

/**
 * Make one call until it is answered or no further try is worth it. The call must be safe to
 * repeat. Throws LetterlockError.
 */
export async function repeat<Answer>(
  attempt: () => Promise<Answer>,
  backoff: Backoff,
  sleep: Sleep,
): Promise<Answer> {
  const never = new AbortController().signal;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof LetterlockError)) throw error;
      await sleep(backoff.after(error), never);
    }
  }
}

/**
 * Call `attempt` (one stream, from opening to end) until it gives true, or `stop` is aborted.
 *
 * False or an error worth repeating: wait and call again. Throws the first error that is not.
 */
export async function runUntilDone(
  attempt: () => Promise<boolean>,
  backoff: Backoff,
  sleep: Sleep,
  stop: AbortSignal,
): Promise<void> {
  while (!stop.aborted) {
    let error: LetterlockError = new Unavailable("the stream was ended", { reason: "DRAINING" });
    try {
      if (await attempt()) return;
    } catch (lost) {
      if (!(lost instanceof LetterlockError)) throw lost;
      error = lost;
    }
    if (!stop.aborted) await sleep(backoff.after(error), stop);
  }
}

/** What one stream is made of, from its opening frame on. */
export interface Halves<Request, Response> {
  /** The first frame to write. */
  readonly opening: Request;
  /** Takes the first frame that came (undefined: none did). Throws where it does not fit. */
  opened(frame: Response | undefined): void;
  /** Takes each further frame. */
  read(frame: Response): void;
  /** Writes until there is nothing more to write on this stream, or `over` says that it has ended. */
  write(stream: Stream<Request, Response>, over: () => boolean): Promise<void>;
  /** Wakes a writer that waits. */
  wake(): void;
}

/**
 * Run one stream until its reading half ends; then nothing of it is left. Throws the
 * LetterlockError of the stream's status.
 */
export async function runStream<Request, Response>(
  stream: Stream<Request, Response>,
  halves: Halves<Request, Response>,
  stop: AbortSignal,
): Promise<void> {
  const cancel = () => stream.cancel();
  stop.addEventListener("abort", cancel, { once: true });
  let over = stop.aborted;
  let writer: Promise<void> | undefined;
  try {
    if (over) return;
    await stream.write(halves.opening);
    halves.opened(await stream.read());
    writer = halves.write(stream, () => over);
    writer.catch(cancel); // a bug in the writer ends the stream; it is thrown below
    for (;;) {
      const frame = await stream.read();
      if (frame === undefined) return;
      halves.read(frame);
    }
  } finally {
    over = true;
    stop.removeEventListener("abort", cancel);
    stream.cancel();
    halves.wake();
    await writer;
  }
}
