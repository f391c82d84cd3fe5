/**
 * A registered device at work: sends, receives, does its chores beside one mailbox stream.
 *
 * Puts sender, mailbox and chores together, and hands out events. The order is always: change the
 * state, commit, then let anything out.
 */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { MAX_RECEIPT_IDS } from "../content/checks.js";
import { DeviceError, type LetterlockError } from "../errors.js";
import { fromRefusal } from "../faults.js";
import { ContentSchema } from "../generated/letterlock/content/v1/content_pb.js";
import type { Item, SubmissionResult } from "../generated/letterlock/relay/v1/mailbox_pb.js";
import { ErrorReason } from "../generated/letterlock/v1/errors_pb.js";
import type { Backoff } from "../retry.js";
import { endsWithin, type Sleep } from "../waiting.js";
import { hex, unhex } from "../wire.js";
import { Chores } from "./chores.js";
import { type DeviceEvent, type IncomingMessage, SendRefused } from "./events.js";
import type { TakenIn } from "./inbox.js";
import { Mailbox } from "./mailbox.js";
import type { Answered, Waiting } from "./outbox.js";
import type { Relay } from "./relay.js";
import { Sender } from "./sender.js";
import type { DeviceState } from "./state.js";

const READ_RECEIPT_SECONDS = 7 * 24 * 3600;

/** Deliveries that share one commit. */
const TAKE_AT_ONCE = 256;

/** How long closing waits for what is under way, in seconds. */
const CLOSE_SECONDS = 5;

/** How a device works; see Device. */
export interface ConnectionOptions {
  readonly window: number;
  readonly oneTimePreKeys: number;
  readonly readReceipts: boolean;
  readonly backoff: () => Backoff;
  readonly sleep: Sleep;
  readonly nowMs: () => number;
}

/** How a message is sent; see Device.send(). */
export interface SendOptions {
  readonly timeToLive: number;
  readonly wait: boolean;
  readonly ephemeral: boolean;
}

/** One registered device; the stream is opened by the first use. */
export class Connection {
  readonly #state: DeviceState;
  readonly #options: ConnectionOptions;
  readonly #ready: DeviceEvent[];
  readonly #toReceipt = new Map<string, string[]>();
  readonly #sender: Sender;
  readonly #mailbox: Mailbox;
  readonly #chores: Chores;
  #runner: Promise<void> | undefined;
  #taking: Promise<void> | undefined;
  #closed = false;

  /** Nothing is connected yet. */
  constructor(state: DeviceState, relay: Relay, options: ConnectionOptions) {
    const { nowMs, window, oneTimePreKeys } = options;
    const tell = (event: DeviceEvent) => this.#tell(event);
    this.#state = state;
    this.#options = options;
    this.#ready = [...state.inbox.unacknowledged];
    this.#sender = new Sender(state, relay, tell, nowMs);
    this.#mailbox = new Mailbox({
      open: () => relay.connect(),
      window,
      unanswered: () => state.outbox.submissions(),
      onResults: (results) => void state.note(() => this.#onResults(results)),
      backoff: options.backoff(),
      sleep: options.sleep,
    });
    this.#chores = new Chores({
      state,
      relay,
      mailbox: this.#mailbox,
      oneTimePreKeys,
      settle: (messageId, error) => void state.note(() => this.#settle(messageId, error)),
      tell,
      nowMs,
    });
  }

  /** Wait until the stream is open. Throws what keeps it from opening. */
  async open(): Promise<void> {
    this.#start();
    while (!this.#mailbox.isOpen) {
      this.#check();
      await this.#mailbox.news.changed();
    }
  }

  /**
   * Commit what was acked, write what waits, end the stream; who waits for an answer gets
   * DeviceError, and the message goes out with the next connection.
   */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#taking?.catch(() => undefined); // whoever asked for it has heard
    if (!this.#state.isBroken) await endsWithin(this.#flush(), CLOSE_SECONDS);
    this.#closed = true;
    this.#mailbox.close();
    if (this.#runner && !(await endsWithin(this.#runner, CLOSE_SECONDS))) this.#mailbox.abort();
    this.#state.outbox.fail(new DeviceError("device was closed"));
    this.#mailbox.news.notify();
  }

  /** See Device.send(). */
  async send(
    to: string,
    init: MessageInitShape<typeof ContentSchema>,
    { timeToLive, wait, ephemeral }: SendOptions,
  ): Promise<string> {
    this.#start();
    const payload = this.#sender.newPayload(create(ContentSchema, init));
    const accountId = await this.#sender.accountOf(to);
    const release = await this.#state.outbox.reserve();
    const answer = wait ? promised() : undefined;
    try {
      this.#check();
      const travel = { timeToLive, ephemeral, answered: answer?.settle };
      const { submission } = await this.#sender.seal(accountId, payload, travel);
      this.#mailbox.submit(submission);
    } finally {
      release();
    }
    await answer?.settled;
    return hex(payload.messageId);
  }

  /** See Device.nextEvent(). */
  async nextEvent(signal?: AbortSignal): Promise<DeviceEvent> {
    this.#start();
    for (;;) {
      signal?.throwIfAborted();
      const event = this.#ready.shift();
      if (event !== undefined) return event;
      await this.#flush();
      if (this.#ready.length > 0) continue;
      const items = this.#mailbox.take(TAKE_AT_ONCE);
      if (items.length > 0) {
        this.#taking = this.#takeIn(items);
        await this.#taking;
      } else {
        this.#check();
        await this.#mailbox.news.changed(signal);
      }
    }
  }

  /** The application is done with a message. */
  acked(message: IncomingMessage): void {
    void this.#state.note(() => this.#state.inbox.acknowledge(message));
    if (!this.#options.readReceipts || message.text === undefined) return;
    const due = this.#toReceipt.get(message.sender) ?? [];
    this.#toReceipt.set(message.sender, [...due, message.messageId]);
  }

  #start(): void {
    if (this.#closed) throw new DeviceError("device is closed");
    this.#runner ??= this.#run();
  }

  #check(): void {
    if (this.#mailbox.failure !== undefined) throw this.#mailbox.failure;
    if (this.#closed) throw new DeviceError("device is closed");
  }

  async #run(): Promise<void> {
    const mailbox = this.#mailbox;
    try {
      const chores = this.#chores.run();
      chores.catch(() => mailbox.abort());
      await mailbox.run().finally(() => this.#chores.stop());
      await chores;
    } catch (cause) {
      // A bug: whoever waits must hear of it, not wait for ever.
      mailbox.failure = new DeviceError("connection ended by a bug", { cause });
      mailbox.news.notify();
    }
    if (mailbox.failure !== undefined) this.#state.outbox.fail(mailbox.failure);
  }

  async #takeIn(items: readonly Item[]): Promise<void> {
    const taken = await this.#state.turn(async () => {
      const nowMs = this.#options.nowMs();
      const all: [bigint, TakenIn][] = [];
      for (const item of items) {
        all.push([item.itemId, await this.#state.inbox.takeIn(item, nowMs)]);
      }
      return all;
    });
    const [safe, failed]: [bigint[], bigint[]] = [[], []];
    for (const [itemId, { events, complaint, report }] of taken) {
      this.#ready.push(...events);
      if (complaint !== undefined) this.#release(complaint);
      if (report !== undefined) this.#chores.reported(report, itemId);
      else (complaint === undefined ? safe : failed).push(itemId);
    }
    this.#mailbox.acknowledge(safe, failed);
    this.#chores.keysUsed();
  }

  #release(entry: Waiting): void {
    entry.isDurable = true;
    this.#mailbox.submit(entry.submission);
  }

  /** Send the read receipts that are due, and commit what was acked. */
  async #flush(): Promise<void> {
    for (const [accountId, messageIds] of this.#toReceipt) {
      this.#toReceipt.delete(accountId);
      for (let start = 0; start < messageIds.length; start += MAX_RECEIPT_IDS) {
        const ids = messageIds.slice(start, start + MAX_RECEIPT_IDS).map(unhex);
        const kind = { case: "readReceipt", value: { messageIds: ids } } as const;
        const options = { timeToLive: READ_RECEIPT_SECONDS, wait: false, ephemeral: false };
        await this.send(accountId, { kind }, options);
      }
    }
    await this.#state.turn(async () => undefined);
  }

  #onResults(results: readonly SubmissionResult[]): void {
    for (const result of results) {
      const { refused, messageId } = result;
      if (refused === undefined) this.#settle(messageId);
      else if (refused.reason === ErrorReason.DEVICES_CHANGED) this.#chores.repair(result);
      else if (refused.reason !== ErrorReason.DRAINING) {
        this.#settle(messageId, fromRefusal(refused));
      }
    }
  }

  #settle(messageId: Uint8Array, error?: LetterlockError): void {
    const entry = this.#state.outbox.get(messageId);
    if (entry !== undefined && error === undefined) {
      this.#state.healing.keep(entry, this.#options.nowMs());
    }
    const heard = this.#state.outbox.settle(messageId, error);
    if (error !== undefined && !heard) this.#tell(new SendRefused(hex(messageId), error));
  }

  #tell(event: DeviceEvent): void {
    this.#ready.push(event);
    this.#mailbox.news.notify();
  }
}

/** An answer that somebody may wait for, or not. */
function promised(): { settled: Promise<void>; settle: Answered } {
  let settle: Answered = () => undefined;
  const settled = new Promise<void>((resolve, reject) => {
    settle = (error) => (error === undefined ? resolve() : reject(error));
  });
  settled.catch(() => undefined);
  return { settled, settle };
}
