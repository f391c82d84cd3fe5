/** A stream without a network, whose other end the test is; and what else a client needs. */

import type { Receiver } from "../../src/business/events.js";
import type { Stream } from "../../src/channel.js";
import type { LetterlockError } from "../../src/errors.js";
import { Signal } from "../../src/waiting.js";

/** Frames that were written wait in `written`; the test answers with give(), done() and fail(). */
export class FakeStream<Request, Response> implements Stream<Request, Response> {
  readonly written: Request[] = [];
  ended = false;
  cancelled = false;
  readonly #news = new Signal();
  readonly #frames: Response[] = [];
  #over: "no" | "done" | LetterlockError = "no";

  async write(frame: Request): Promise<void> {
    this.written.push(frame);
    this.#news.notify();
  }

  end(): void {
    this.ended = true;
    this.#news.notify();
  }

  async read(): Promise<Response | undefined> {
    for (;;) {
      const frame = this.#frames.shift();
      if (frame !== undefined) return frame;
      if (this.#over === "done" || this.cancelled) return undefined;
      if (this.#over !== "no") throw this.#over;
      await this.#news.changed();
    }
  }

  cancel(): void {
    this.cancelled = true;
    this.#news.notify();
  }

  give(frame: Response): void {
    this.#frames.push(frame);
    this.#news.notify();
  }

  done(): void {
    this.#over = "done";
    this.#news.notify();
  }

  fail(error: LetterlockError): void {
    this.#over = error;
    this.#news.notify();
  }

  /** Wait until the other end has done something. */
  async until(happened: () => boolean): Promise<void> {
    while (!happened()) await this.#news.changed();
  }
}

/** Opens fake streams, one after the other. */
export class FakeStreams<Request, Response> {
  readonly #opened: FakeStream<Request, Response>[] = [];
  readonly #news = new Signal();

  readonly open = (): FakeStream<Request, Response> => {
    const stream = new FakeStream<Request, Response>();
    this.#opened.push(stream);
    this.#news.notify();
    return stream;
  };

  /** The n-th stream that was opened, once it is. */
  async nth(n: number): Promise<FakeStream<Request, Response>> {
    for (;;) {
      const stream = this.#opened[n];
      if (stream !== undefined) return stream;
      await this.#news.changed();
    }
  }
}

/** A Sleep that takes no time. */
export const noSleep = async (): Promise<void> => undefined;

/** A Receiver that is told in vain. */
export const nobody: Receiver = {
  ack: () => undefined,
  nack: () => undefined,
  extend: () => undefined,
};
