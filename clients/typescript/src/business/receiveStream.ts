/**
 * Receives events over a Receive stream that is opened again as often as it is lost.
 *
 * Drives an AckWindow (receiving.ts): the reader offers events to it, the caller's acks and nacks go
 * through it to the writer, which also renews the leases of what is in hand.
 */

import { create } from "@bufbuild/protobuf";
import type { Stream } from "../channel.js";
import { ServerError } from "../errors.js";
import {
  type ReceiveOpen,
  type ReceiveRequest,
  ReceiveRequestSchema,
  type ReceiveResponse,
} from "../generated/letterlock/v1/messaging_pb.js";
import { runStream, runUntilDone } from "../reconnect.js";
import type { Backoff } from "../retry.js";
import { type Clock, endsWithin, Signal, type Sleep } from "../waiting.js";
import { secondsOf } from "../wire.js";
import { Event, type Receiver } from "./events.js";
import { AckWindow } from "./receiving.js";

/** Share of a lease after which it is renewed: two more tries before it runs out. */
const RENEW_SHARE = 1 / 3;

/** How long closing waits for the gateway to take the last acks, in seconds. */
const CLOSE_SECONDS = 5;

type ReceiveCall = Stream<ReceiveRequest, ReceiveResponse>;

/** What a ReceiveStream works with. */
export interface ReceiveStreamOptions {
  readonly open: () => ReceiveCall;
  readonly opening: ReceiveOpen;
  /** For how many seconds the lease of an event in hand is renewed. */
  readonly hold: number;
  readonly clock: Clock;
  readonly backoff: Backoff;
  readonly sleep: Sleep;
}

/**
 * Async iterator over events; leaving a `for await` loop closes it, and gets the last acks out.
 *
 * At most `window` events are in the caller's hands; their leases are renewed for `hold` seconds each.
 * After a nack, events of the same user that the caller does not have yet come behind the nacked one.
 * Iteration ends by `close()`, or throws the LetterlockError that no reconnecting can mend (Replaced,
 * Unauthenticated, Forbidden, ...).
 */
export class ReceiveStream implements AsyncIterableIterator<Event> {
  readonly #options: ReceiveStreamOptions;
  readonly #acks: AckWindow;
  readonly #receiver: Receiver = {
    ack: (event) => this.#ack(event),
    nack: (event, delay) => this.#nack(event, delay),
    extend: (event, seconds) => this.#extend(event, seconds),
  };
  #events: Event[] = [];
  readonly #toRead = new Signal();
  readonly #toWrite = new Signal();
  readonly #stop = new AbortController();
  #lease = 0;
  #renewalDue = false;
  #caughtUp = false;
  #connected = false;
  #closing = false;
  #draining = false;
  #ended = false;
  #failure: unknown;
  #runner: Promise<void> | undefined;

  constructor(options: ReceiveStreamOptions) {
    this.#options = options;
    this.#acks = new AckWindow(options.opening.window, options.hold);
  }

  /** Whether everything that waited at the opening has been given. */
  get caughtUp(): boolean {
    return this.#caughtUp;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next event. */
  async next(): Promise<IteratorResult<Event, undefined>> {
    this.#runner ??= this.#run();
    for (;;) {
      const value = this.#events.shift();
      if (value !== undefined) return { done: false, value };
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#closing || this.#ended) return { done: true, value: undefined };
      await this.#toRead.changed();
    }
  }

  /** The events that waited when the stream was opened; ends after the last of them. */
  async *untilCaughtUp(): AsyncGenerator<Event, void, undefined> {
    this.#runner ??= this.#run();
    for (;;) {
      for (let event = this.#events.shift(); event; event = this.#events.shift()) yield event;
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#caughtUp || this.#closing || this.#ended) return;
      await this.#toRead.changed();
    }
  }

  /** Closes it: a `for await` loop was left early. */
  async return(): Promise<IteratorResult<Event, undefined>> {
    await this.close();
    return { done: true, value: undefined };
  }

  /** Write the acks given so far, wait for the gateway to take them, and stop. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#toWrite.notify();
    this.#toRead.notify();
    if (this.#runner === undefined) return;
    // Without a connection, acks that are left have nobody to take them now.
    if (!this.#connected || !(await endsWithin(this.#runner, CLOSE_SECONDS))) this.#stop.abort();
    await this.#runner;
  }

  async #run(): Promise<void> {
    const { backoff, sleep } = this.#options;
    try {
      await runUntilDone(() => this.#attempt(), backoff, sleep, this.#stop.signal);
    } catch (error) {
      this.#failure = error;
    } finally {
      this.#ended = true;
      this.#toRead.notify();
    }
  }

  async #attempt(): Promise<boolean> {
    this.#draining = false;
    const { open, opening } = this.#options;
    const halves = {
      opening: create(ReceiveRequestSchema, { frame: { case: "open", value: opening } }),
      opened: (frame: ReceiveResponse | undefined) => this.#noteOpening(frame),
      read: (frame: ReceiveResponse) => this.#read(frame),
      write: (stream: ReceiveCall, over: () => boolean) => this.#write(stream, over),
      wake: () => this.#toWrite.notify(),
    };
    try {
      await runStream(open(), halves, this.#stop.signal);
    } finally {
      this.#connected = false;
      this.#acks.lost();
    }
    return this.#closing;
  }

  #noteOpening(response: ReceiveResponse | undefined): void {
    if (response?.frame.case !== "opened") {
      throw new ServerError("the stream did not begin with its opening answer");
    }
    this.#options.backoff.succeeded();
    this.#connected = true;
    const { lease } = response.frame.value;
    this.#lease = lease ? secondsOf(lease) : 0;
  }

  #read({ frame }: ReceiveResponse): void {
    if (frame.case === "events") {
      const now = this.#options.clock();
      for (const wire of frame.value.events) {
        const event = new Event(wire, this.#receiver);
        if (this.#acks.offer(event.eventId, event.userId, now)) this.#events.push(event);
      }
    } else if (frame.case === "nacked") {
      this.#acks.answered(frame.value.eventIds);
    } else if (frame.case === "caughtUp") {
      this.#caughtUp = true;
    } else if (frame.case === "draining") {
      // The gateway still takes acks and ends the stream when its grace is over; the writer moves
      // on sooner when nothing is in hand.
      this.#draining = true;
    }
    this.#toRead.notify();
    this.#toWrite.notify();
  }

  #ack(event: Event): void {
    this.#acks.ack(event.eventId);
    this.#toWrite.notify();
  }

  #nack(event: Event, delay: number): void {
    if (!this.#acks.nack(event.eventId, event.userId, delay)) return;
    // They come again behind it: handed out now, they would come before it.
    const behind = this.#events.filter((later) => later.userId === event.userId);
    for (const later of behind) this.#acks.letGo(later.eventId);
    this.#events = this.#events.filter((later) => later.userId !== event.userId);
    this.#toWrite.notify();
  }

  #extend(event: Event, seconds: number): void {
    this.#acks.extend(event.eventId, seconds, this.#options.clock());
    this.#toWrite.notify();
  }

  async #write(stream: ReceiveCall, over: () => boolean): Promise<void> {
    const stopRenewing = this.#startRenewing();
    try {
      while (!over()) {
        this.#renew();
        const frame = this.#acks.take();
        if (frame !== undefined) {
          await stream.write(frame);
        } else if (this.#closing || (this.#draining && this.#acks.isIdle)) {
          stream.end();
          return;
        } else {
          await this.#toWrite.changed();
        }
      }
    } finally {
      stopRenewing();
    }
  }

  #startRenewing(): () => void {
    this.#renewalDue = false;
    if (this.#lease === 0) return () => undefined;
    const due = () => {
      this.#renewalDue = true;
      this.#toWrite.notify();
    };
    const timer = setInterval(due, this.#lease * RENEW_SHARE * 1000);
    return () => clearInterval(timer);
  }

  // By the writer: with a writer that waits for the network, renewals do not pile up.
  #renew(): void {
    if (!this.#renewalDue) return;
    this.#renewalDue = false;
    this.#acks.renew(this.#options.clock(), this.#lease);
  }
}
