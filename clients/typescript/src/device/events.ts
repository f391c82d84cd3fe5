/**
 * What a device tells its application: one class per kind of event, told apart by `kind`.
 *
 * Ids are 32 characters of hex. Content stays out of what console.log shows.
 */

import type { LetterlockError } from "../errors.js";
import type { Content, Payload } from "../generated/letterlock/content/v1/content_pb.js";
import { dateOf, hex } from "../wire.js";

/**
 * Somebody wrote. Kept on this device, and given again after a restart, until `ack()`; a typing sign
 * is not kept.
 */
export class IncomingMessage {
  readonly kind = "message";
  /** The account that wrote. */
  readonly sender: string;
  /** Which of its devices. */
  readonly deviceId: number;
  /** Where it stands among the messages of this device. */
  readonly sequence: number;
  readonly #payload: Payload;
  readonly #onAck: (message: IncomingMessage) => void;

  constructor(
    sender: string,
    deviceId: number,
    sequence: number,
    payload: Payload,
    onAck: (message: IncomingMessage) => void,
  ) {
    this.sender = sender;
    this.deviceId = deviceId;
    this.sequence = sequence;
    this.#payload = payload;
    this.#onAck = onAck;
  }

  /** The sender's id of the message. */
  get messageId(): string {
    return hex(this.#payload.messageId);
  }

  /** What they said; undefined for a payload without content. */
  get content(): Content | undefined {
    return this.#payload.content;
  }

  /** The text of a message that has one. */
  get text(): string | undefined {
    const kind = this.content?.kind;
    return kind?.case === "text" ? kind.value.body : undefined;
  }

  /** When their end says that it was sent. */
  get sentTime(): Date {
    return dateOf(this.#payload.sentTime);
  }

  /** Done with it: this device forgets it with its next commit. */
  ack(): void {
    this.#onAck(this);
  }
}

/** News of a message that this device sent. */
export class Receipt {
  readonly kind = "receipt";
  constructor(
    readonly messageId: string,
    readonly recipient: string,
    /** DELIVERED, EXPIRED or GONE. */
    readonly receipt: string,
  ) {}
}

/**
 * The identity key of an account is not the one seen before: a new phone, or somebody in between.
 * Messages go on under the new key; compare safety numbers.
 */
export class IdentityChanged {
  readonly kind = "identity_changed";
  constructor(readonly account: string) {}
}

/**
 * A message could not be decrypted. With `resendRequested` its sender was asked for it again, and it
 * may still come.
 */
export class Undecryptable {
  readonly kind = "undecryptable";
  constructor(
    readonly sender: string,
    readonly deviceId: number,
    /** For example INVALID_MESSAGE, UNTRUSTED_IDENTITY, MALFORMED. */
    readonly reason: string,
    readonly messageId: string,
    readonly resendRequested: boolean,
  ) {}
}

/** A message that nobody waited for was refused; nothing of it was delivered. */
export class SendRefused {
  readonly kind = "refused";
  constructor(
    readonly messageId: string,
    readonly error: LetterlockError,
  ) {}
}

/** Anything that a device tells. */
export type DeviceEvent = IncomingMessage | Receipt | IdentityChanged | Undecryptable | SendRefused;
