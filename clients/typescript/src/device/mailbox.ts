/**
 * A device's Mailbox.Connect stream, opened again as often as it is lost.
 *
 * Writes submissions and acks in batches, holds deliveries until the device takes them (the relay's
 * window bounds them), passes answers on. Knows no ratchet and reads no ciphertext: what it is given
 * to write is durable on this device already.
 */

import { create, toBinary } from "@bufbuild/protobuf";
import { LetterlockError, ServerError } from "../errors.js";
import {
  type ConnectRequest,
  ConnectRequestSchema,
  type ConnectResponse,
  type Item,
  type Submission,
  type SubmissionResult,
  SubmissionSchema,
} from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { runStream, runUntilDone } from "../reconnect.js";
import type { Backoff } from "../retry.js";
import { Signal, type Sleep } from "../waiting.js";
import type { MailboxCall } from "./relay.js";

const MAX_SUBMISSIONS = 256;
const MAX_SUBMISSION_BYTES = 3 * 1024 * 1024;
const MAX_ACKS = 10_000;

/** What a Mailbox works with. */
export interface MailboxOptions {
  readonly open: () => MailboxCall;
  readonly window: number;
  /** What is to be submitted on a new stream, oldest first. */
  readonly unanswered: () => Submission[];
  readonly onResults: (results: SubmissionResult[]) => void;
  readonly backoff: Backoff;
  readonly sleep: Sleep;
}

/** One device's mailbox at the relay. */
export class Mailbox {
  /** Notified when deliveries came, the stream was opened, or the mailbox has ended. */
  readonly news = new Signal();
  /** Why the mailbox has ended, where it was not closed. */
  failure: LetterlockError | undefined;
  readonly #options: MailboxOptions;
  readonly #toWrite = new Signal();
  readonly #stop = new AbortController();
  #toSubmit: Submission[] = [];
  #acks: bigint[] = [];
  #failed: bigint[] = [];
  #held: Item[] = [];
  #isOpen = false;
  #draining = false;
  #closing = false;

  constructor(options: MailboxOptions) {
    this.#options = options;
  }

  /** Whether the stream is open now. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Write a submission as soon as the stream is open. It stays among `unanswered`. */
  submit(submission: Submission): void {
    if (!this.#isOpen) return;
    this.#toSubmit.push(submission);
    this.#toWrite.notify();
  }

  /**
   * Let the relay forget items: what they said is durable here, or what `failed` to be decrypted is
   * durably reported.
   */
  acknowledge(itemIds: readonly bigint[], failed: readonly bigint[] = []): void {
    if (!this.#isOpen) return;
    this.#acks.push(...itemIds);
    this.#failed.push(...failed);
    this.#toWrite.notify();
  }

  /** Deliveries that wait, oldest first. */
  take(most: number): Item[] {
    return this.#held.splice(0, most);
  }

  /** Write what waits, then end the stream; run() settles when the relay has taken it. */
  close(): void {
    this.#closing = true;
    if (!this.#isOpen) this.#stop.abort();
    this.#toWrite.notify();
  }

  /** Give the stream up; run() settles at once. */
  abort(): void {
    this.#stop.abort();
  }

  /** Keep the stream open until close(), or until `failure` is set. */
  async run(): Promise<void> {
    const { backoff, sleep } = this.#options;
    try {
      await runUntilDone(() => this.#attempt(), backoff, sleep, this.#stop.signal);
    } catch (error) {
      if (!(error instanceof LetterlockError)) throw error;
      this.failure = error;
    } finally {
      this.news.notify();
    }
  }

  async #attempt(): Promise<boolean> {
    this.#draining = false;
    const { open, window } = this.#options;
    const halves = {
      opening: create(ConnectRequestSchema, { frame: { case: "open", value: { window } } }),
      opened: (frame: ConnectResponse | undefined) => this.#noteOpening(frame),
      read: (frame: ConnectResponse) => this.#read(frame),
      write: (stream: MailboxCall, over: () => boolean) => this.#write(stream, over),
      wake: () => this.#toWrite.notify(),
    };
    try {
      await runStream(open(), halves, this.#stop.signal);
    } finally {
      this.#isOpen = false;
      // What was not acknowledged is delivered again on the next stream.
      this.#acks = [];
      this.#failed = [];
      this.#held = [];
    }
    return this.#closing;
  }

  #noteOpening(response: ConnectResponse | undefined): void {
    if (response?.frame.case !== "opened") {
      throw new ServerError("the stream did not begin with its opening answer");
    }
    this.#options.backoff.succeeded();
    this.#toSubmit = this.#options.unanswered();
    this.#isOpen = true;
    this.news.notify();
  }

  #read({ frame }: ConnectResponse): void {
    if (frame.case === "deliveries") {
      this.#held.push(...frame.value.items);
      this.news.notify();
    } else if (frame.case === "results") {
      this.#options.onResults(frame.value.results);
    } else if (frame.case === "draining") {
      this.#draining = true;
      this.#toWrite.notify();
    }
  }

  async #write(stream: MailboxCall, over: () => boolean): Promise<void> {
    while (!over()) {
      const frame = this.#nextFrame();
      if (frame !== undefined) {
        await stream.write(create(ConnectRequestSchema, { frame }));
      } else if (this.#closing || this.#draining) {
        stream.end();
        return;
      } else {
        await this.#toWrite.changed();
      }
    }
  }

  #nextFrame(): ConnectRequest["frame"] | undefined {
    if (this.#acks.length > 0 || this.#failed.length > 0) {
      const itemIds = this.#acks.splice(0, MAX_ACKS);
      const failedItemIds = this.#failed.splice(0, MAX_ACKS - itemIds.length);
      const frame = { case: "acks", value: { itemIds, failedItemIds } } as const;
      return create(ConnectRequestSchema, { frame }).frame;
    }
    if (this.#toSubmit.length === 0 || this.#draining) return undefined;
    const submissions = this.#nextBatch();
    const frame = { case: "submissions", value: { submissions } } as const;
    return create(ConnectRequestSchema, { frame }).frame;
  }

  #nextBatch(): Submission[] {
    const batch: Submission[] = [];
    let size = 0;
    for (const submission of this.#toSubmit) {
      size += toBinary(SubmissionSchema, submission).length;
      if (batch.length >= MAX_SUBMISSIONS || (batch.length > 0 && size > MAX_SUBMISSION_BYTES))
        break;
      batch.push(submission);
    }
    this.#toSubmit.splice(0, batch.length);
    return batch;
  }
}
