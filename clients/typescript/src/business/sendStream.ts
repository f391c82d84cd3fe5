/**
 * Sends many messages over a Send stream that is opened again as often as it is lost.
 *
 * Drives a SendWindow (sending.ts): the pump admits messages from the caller's iterable, the writer
 * takes batches, the reader answers. Nothing is forgotten before it is answered, and what is written
 * again keeps its key. This module does not look into messages.
 */

import { create } from "@bufbuild/protobuf";
import type { Stream } from "../channel.js";
import { LetterlockError, ServerError } from "../errors.js";
import {
  type SendRequest,
  SendRequestSchema,
  type SendResponse,
} from "../generated/letterlock/v1/messaging_pb.js";
import { runStream, runUntilDone } from "../reconnect.js";
import type { Backoff } from "../retry.js";
import { Signal, type Sleep } from "../waiting.js";
import {
  newIdempotencyKey,
  type OutgoingMessage,
  type SendResult,
  toResult,
  toWire,
} from "./outgoing.js";
import { MAX_BATCH_MESSAGES, SendWindow } from "./sending.js";

/** Messages as they come. */
export type Messages = Iterable<OutgoingMessage> | AsyncIterable<OutgoingMessage>;

type SendCall = Stream<SendRequest, SendResponse>;

/** What a SendStream works with. */
export interface SendStreamOptions {
  readonly open: () => SendCall;
  readonly number: string;
  /** How many messages may be in hand; the gateway's own bound applies too. */
  readonly window: number;
  readonly backoff: Backoff;
  readonly sleep: Sleep;
}

/**
 * Async iterator over the results, one for each message, in the order of their arrival.
 *
 * Results and unanswered messages together never exceed the window: a caller that stops taking
 * results stops the sending. Leaving a `for await` loop early closes it.
 */
export class SendStream implements AsyncIterableIterator<SendResult> {
  readonly #messages: Messages;
  readonly #options: SendStreamOptions;
  readonly #window: SendWindow;
  readonly #results: SendResult[] = [];
  readonly #toRead = new Signal();
  readonly #toWrite = new Signal();
  readonly #room = new Signal();
  readonly #stop = new AbortController();
  #maxBatch = MAX_BATCH_MESSAGES;
  #sourceDone = false;
  #draining = false;
  #failure: unknown;
  #runner: Promise<void> | undefined;
  #ended = false;

  constructor(messages: Messages, options: SendStreamOptions) {
    this.#messages = messages;
    this.#options = options;
    this.#window = new SendWindow(options.window);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /**
   * The next result. Throws the LetterlockError that ended the sending, or what the caller's
   * iterable threw (after the results of what it had given).
   */
  async next(): Promise<IteratorResult<SendResult, undefined>> {
    this.#runner ??= this.#run();
    for (;;) {
      const value = this.#results.shift();
      if (value !== undefined) {
        this.#room.notify();
        return { done: false, value };
      }
      if (this.#ended) return this.#end();
      await this.#toRead.changed();
    }
  }

  /** Closes it: a `for await` loop was left early. */
  async return(): Promise<IteratorResult<SendResult, undefined>> {
    await this.close();
    return { done: true, value: undefined };
  }

  /**
   * Stop. Messages without an answer may or may not have been accepted: sending them again under
   * their keys is safe.
   */
  async close(): Promise<void> {
    this.#stop.abort();
    this.#room.notify();
    await this.#runner;
  }

  #end(): IteratorResult<SendResult, undefined> {
    const failure = this.#failure;
    this.#failure = undefined;
    if (failure !== undefined) throw failure;
    return { done: true, value: undefined };
  }

  async #run(): Promise<void> {
    const { backoff, sleep } = this.#options;
    void this.#pump();
    try {
      await runUntilDone(() => this.#attempt(), backoff, sleep, this.#stop.signal);
    } catch (error) {
      this.#failure = error;
    } finally {
      this.#stop.abort();
      this.#ended = true;
      this.#room.notify();
      this.#toRead.notify();
    }
  }

  async #pump(): Promise<void> {
    try {
      for await (const message of this.#messages) {
        while (this.#isFull && !this.#stop.signal.aborted) await this.#room.changed();
        if (this.#stop.signal.aborted) return;
        this.#admit(message);
      }
    } catch (error) {
      this.#failure = error; // the caller's own iterable: given back at the end
    }
    this.#sourceDone = true;
    this.#toWrite.notify();
  }

  #admit(message: OutgoingMessage): void {
    const idempotencyKey = message.idempotencyKey ?? newIdempotencyKey();
    try {
      this.#window.admit(toWire(message, idempotencyKey));
      this.#toWrite.notify();
    } catch (error) {
      if (!(error instanceof LetterlockError)) throw error;
      this.#results.push({ idempotencyKey, error });
      this.#toRead.notify();
    }
  }

  get #isFull(): boolean {
    return this.#window.size + this.#results.length >= this.#window.limit;
  }

  get #isFinished(): boolean {
    return this.#sourceDone && this.#window.size === 0;
  }

  async #attempt(): Promise<boolean> {
    this.#window.lost();
    this.#draining = false;
    const { open, number } = this.#options;
    const halves = {
      opening: create(SendRequestSchema, {
        frame: { case: "open", value: { businessNumber: number } },
      }),
      opened: (frame: SendResponse | undefined) => this.#noteOpening(frame),
      read: (frame: SendResponse) => this.#read(frame),
      write: (stream: SendCall, over: () => boolean) => this.#write(stream, over),
      wake: () => this.#toWrite.notify(),
    };
    await runStream(open(), halves, this.#stop.signal);
    return this.#isFinished;
  }

  #noteOpening(response: SendResponse | undefined): void {
    if (response?.frame.case !== "opened") {
      throw new ServerError("the stream did not begin with its opening answer");
    }
    const { maxBatchMessages, maxUnanswered } = response.frame.value;
    const { window } = this.#options;
    this.#maxBatch = maxBatchMessages || MAX_BATCH_MESSAGES;
    this.#window.limit = Math.min(window, maxUnanswered || window);
  }

  async #write(stream: SendCall, over: () => boolean): Promise<void> {
    while (!(over() || this.#draining || this.#isFinished)) {
      const messages = this.#window.take(this.#maxBatch);
      if (messages.length > 0) {
        const frame = { case: "batch", value: { messages } } as const;
        await stream.write(create(SendRequestSchema, { frame }));
      } else {
        await this.#toWrite.changed();
      }
    }
    if (!over()) stream.end();
  }

  #read({ frame }: SendResponse): void {
    if (frame.case === "draining") {
      this.#draining = true;
    } else if (frame.case === "results") {
      this.#options.backoff.succeeded();
      for (const answer of frame.value.results) {
        if (this.#window.answer(answer)) this.#results.push(toResult(answer));
      }
      this.#toRead.notify();
    }
    this.#toWrite.notify();
  }
}
