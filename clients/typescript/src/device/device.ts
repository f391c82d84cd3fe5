/**
 * A user's device: registers, sends and receives, end-to-end encrypted by the official libsignal
 * client.
 *
 * The public face: opens store and channel, comes to an account (registration.ts), and hands the work
 * to a Connection (connection.ts).
 */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { Channel, type ChannelOptions } from "../channel.js";
import { DeviceError, NotFound } from "../errors.js";
import type { ContentSchema } from "../generated/letterlock/content/v1/content_pb.js";
import type { Device as DeviceInfo } from "../generated/letterlock/relay/v1/accounts_pb.js";
import { Backoff, type RetryPolicy } from "../retry.js";
import { type Sleep, sleep } from "../waiting.js";
import { unhex } from "../wire.js";
import { Connection, type SendOptions } from "./connection.js";
import type { DeviceEvent } from "./events.js";
import { MAX_UPLOAD } from "./keys.js";
import { DeviceLink } from "./link.js";
import { Registration } from "./registration.js";
import { Relay } from "./relay.js";
import type { SafetyNumber } from "./safetyNumber.js";
import { DEFAULT_TIME_TO_LIVE } from "./sender.js";
import { DeviceState, SELF } from "./state.js";
import type { Changes, DeviceStore } from "./store.js";

/** How a Device works. */
export interface DeviceOptions extends ChannelOptions {
  /** Keeps its state: a FileStore, or a MemoryStore for trials. */
  readonly store: DeviceStore;
  /** Deliveries that may be unacknowledged at a time. Not set: 256. */
  readonly window?: number;
  /** One-time pre-keys of each kind kept in the directory (0: none, and no top-up). Not set: 100. */
  readonly oneTimePreKeys?: number;
  /** Whether every acked text is reported as read. */
  readonly readReceipts?: boolean;
  /** Seconds for each single call. Not set: 10. */
  readonly deadline?: number;
  readonly retry?: RetryPolicy;
  /** Gives a number from 0 to 1, for waits that spread. */
  readonly jitter?: () => number;
  readonly sleep?: Sleep;
  /** The clock, in milliseconds since 1970. */
  readonly nowMs?: () => number;
}

/** One device of one user: `open()` it, then `register()` or `link()` once. Close it in the end. */
export class Device {
  readonly #store: DeviceStore;
  readonly #channel: Channel;
  readonly #relay: Relay;
  readonly #options: DeviceOptions;
  readonly #oneTimePreKeys: number;
  readonly #nowMs: () => number;
  #state: DeviceState | undefined;
  #connection: Connection | undefined;

  private constructor(channel: Channel, options: DeviceOptions) {
    this.#store = options.store;
    this.#options = options;
    this.#channel = channel;
    this.#oneTimePreKeys = Math.min(options.oneTimePreKeys ?? MAX_UPLOAD, MAX_UPLOAD);
    this.#nowMs = options.nowMs ?? Date.now;
    this.#relay = new Relay(channel, {
      deadline: options.deadline ?? 10,
      retry: options.retry ?? {},
      jitter: options.jitter ?? Math.random,
      sleep: options.sleep ?? sleep,
    });
  }

  /** The device of a store; `target` is the relay's `host:port`. Throws LetterlockError. */
  static async open(target: string, options: DeviceOptions): Promise<Device> {
    const device = new Device(new Channel(target, options), options);
    const stored = await options.store.load();
    try {
      if (stored.has(SELF)) device.#openState(stored);
    } catch (error) {
      await device.close();
      throw error;
    }
    return device;
  }

  /** Commit what was acked, write what waits, end the stream, close the store. */
  async close(): Promise<void> {
    await this.#connection?.close();
    this.#channel.close();
    await this.#store.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Whether this device belongs to an account. */
  get isRegistered(): boolean {
    return this.#state !== undefined;
  }

  /** How many messages wait in this device for the relay. Throws DeviceError before registration. */
  get unsent(): number {
    return this.#registered.outbox.size;
  }

  /** The account, 32 characters of hex. Throws DeviceError before registration. */
  get accountId(): string {
    return this.#registered.account.accountId;
  }

  /** The device within the account, 1 to 127. Throws DeviceError before registration. */
  get deviceId(): number {
    return this.#registered.account.deviceId;
  }

  /** The identity key (33 bytes) last seen of an account, for safety numbers. */
  identityOf(accountId: string): Uint8Array | undefined {
    return this.#registered.sessions.identity(accountId);
  }

  /** The safety number with an account that this device has a conversation with. Throws NotFound. */
  safetyNumber(accountId: string): SafetyNumber {
    const found = this.#registered.sessions.safetyNumber(accountId);
    if (found === undefined) throw new NotFound("no conversation with this account");
    return found;
  }

  /** Have a code sent to a number; gives the verification id for register(). */
  requestVerification(phoneNumber: string): Promise<string> {
    return this.#relay.requestVerification(phoneNumber);
  }

  /**
   * Make the account of a number, or take the number over, with this as its first device. Throws
   * VerificationFailed, InvalidRequest, DeviceError.
   */
  async register(phoneNumber: string, verificationId: string, code: string): Promise<void> {
    await this.#become(await this.#registration.register(phoneNumber, verificationId, code));
  }

  /** What a further device needs to join this account. Secret; good once, for minutes. */
  async createLink(): Promise<DeviceLink> {
    const { phoneNumber, identityPrivate } = this.#registered.account;
    const { linkToken } = await this.#relay.createDeviceLink();
    return new DeviceLink(linkToken, phoneNumber, identityPrivate);
  }

  /** Join an account as a further device. Throws LetterlockError. */
  async link(link: DeviceLink): Promise<void> {
    await this.#become(await this.#registration.link(link));
  }

  /** The devices of this account. */
  devices(): Promise<DeviceInfo[]> {
    return this.#relay.listDevices();
  }

  /** Remove a further device of this account, with its mailbox. */
  removeDevice(deviceId: number): Promise<void> {
    return this.#relay.removeDevice(deviceId);
  }

  /** Remove the account from the relay, and everything of it from this device. */
  async deleteAccount(): Promise<void> {
    await this.#connected.close();
    await this.#relay.deleteAccount();
    this.#state = this.#connection = undefined;
    await this.#store.clear();
  }

  /** Open the mailbox stream and wait until it is open. Throws what keeps it from opening. */
  async connect(): Promise<void> {
    await this.#connected.open();
  }

  /** Send a text; see send(). */
  sendText(to: string, text: string, options: Partial<SendOptions> = {}): Promise<string> {
    return this.send(to, { kind: { case: "text", value: { body: text } } }, options);
  }

  /** Put an emoji on a message, or take it back. */
  sendReaction(
    to: string,
    messageId: string,
    emoji: string,
    { removed = false } = {},
  ): Promise<string> {
    const reaction = { messageId: unhex(messageId), emoji, removed };
    return this.send(to, { kind: { case: "reaction", value: reaction } });
  }

  /** Say that messages (1 to 100) were read. */
  sendReadReceipt(to: string, messageIds: readonly string[]): Promise<string> {
    const value = { messageIds: messageIds.map(unhex) };
    return this.send(to, { kind: { case: "readReceipt", value } });
  }

  /** Show that somebody is writing; reaches only devices that are connected now. */
  async sendTyping(to: string, { started = true } = {}): Promise<void> {
    const kind = { case: "typing", value: { started } } as const;
    await this.send(to, { kind }, { wait: false, ephemeral: true });
  }

  /**
   * Encrypt for every device of `to` (E.164, or an account id) and submit; gives the message id.
   *
   * With `wait` (the default) it returns once the relay has it durably, however long there is no
   * connection, and throws what the relay refused it for; without, it returns once it is durable
   * here, and a refusal becomes a SendRefused event. `timeToLive` is in seconds, at most 30 days.
   */
  async send(
    to: string,
    content: MessageInitShape<typeof ContentSchema>,
    options: Partial<SendOptions> = {},
  ): Promise<string> {
    const { timeToLive = DEFAULT_TIME_TO_LIVE, wait = true, ephemeral = false } = options;
    return await this.#connected.send(to, content, { timeToLive, wait, ephemeral });
  }

  /** Events without end; see nextEvent(). */
  async *events(): AsyncGenerator<DeviceEvent, never, undefined> {
    for (;;) yield await this.nextEvent();
  }

  /**
   * The next thing that happened. Deliveries are decrypted as they are asked for here, so what is
   * not asked for stays at the relay. One caller at a time; give up by `signal`, and nothing is lost.
   *
   * Throws Replaced or Unauthenticated when this device may no longer connect.
   */
  async nextEvent({ signal }: { signal?: AbortSignal } = {}): Promise<DeviceEvent> {
    return await this.#connected.nextEvent(signal);
  }

  get #registered(): DeviceState {
    if (this.#state === undefined) throw new DeviceError("device is not registered");
    return this.#state;
  }

  get #registration(): Registration {
    if (this.#state !== undefined) throw new DeviceError("device belongs to an account already");
    return new Registration(this.#relay, this.#oneTimePreKeys, this.#nowMs);
  }

  get #connected(): Connection {
    if (this.#connection === undefined) throw new DeviceError("device is not registered");
    return this.#connection;
  }

  async #become(rows: Changes): Promise<void> {
    await this.#store.commit(rows);
    const stored = new Map<string, Uint8Array<ArrayBuffer>>();
    for (const [name, value] of rows) if (value !== null) stored.set(name, value);
    this.#openState(stored);
  }

  #openState(stored: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): void {
    const state = new DeviceState(this.#store, stored, (message) => this.#connected.acked(message));
    const { window = 256, readReceipts = false, retry = {}, jitter = Math.random } = this.#options;
    this.#relay.useCredential(state.account.credential);
    this.#state = state;
    this.#connection = new Connection(state, this.#relay, {
      window,
      oneTimePreKeys: this.#oneTimePreKeys,
      readReceipts,
      backoff: () => new Backoff(retry, jitter),
      sleep: this.#options.sleep ?? sleep,
      nowMs: this.#nowMs,
    });
  }
}
