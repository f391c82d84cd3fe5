/** One event of a Receive stream in the caller's hands. */

import { InvalidRequest } from "../errors.js";
import type { Content } from "../generated/letterlock/content/v1/content_pb.js";
import {
  type IdentityChange,
  type InboundMessage,
  type MessageStatus,
  MessageStatusSchema,
  type StatusUpdate,
  type UndecryptableMessage,
  UndecryptableMessage_ReasonSchema,
  type Event as WireEvent,
} from "../generated/letterlock/v1/messaging_pb.js";
import { dateOf, enumName } from "../wire.js";

/** The contract's longest lease, and longest delay of a nack. */
const MAX_SECONDS = 600;

/** The stream that an event came from. */
export interface Receiver {
  /** See `Event.ack`. */
  ack(event: Event): void;
  /** See `Event.nack`. */
  nack(event: Event, delay: number): void;
  /** See `Event.extend`. */
  extend(event: Event, seconds: number): void;
}

/** ACCEPTED, SENT, ...; of a status of a newer gateway the number. */
export function statusName(status: MessageStatus): string {
  return enumName(MessageStatusSchema, status);
}

/**
 * Something that happened to a business number.
 *
 * The event is given again, also to the next process, until `ack()` has reached the gateway; keep
 * what you need of it first. It keeps its `eventId`. After the gateway's number of failed attempts it
 * becomes a dead letter (`BusinessClient.inbox`). It shows nothing of itself to console.log.
 */
export class Event {
  readonly #wire: WireEvent;
  readonly #receiver: Receiver;

  constructor(wire: WireEvent, receiver: Receiver) {
    this.#wire = wire;
    this.#receiver = receiver;
  }

  /** Names the event; opaque. */
  get eventId(): string {
    return this.#wire.eventId;
  }

  /**
   * "message", "status", "identity_change", "undecryptable", or the word of a newer contract; "" for
   * a kind that this version does not know: acknowledge it all the same.
   */
  get kind(): string {
    const kind: string = this.#wire.kind.case ?? "";
    return kind.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  }

  /** When the gateway recorded it. */
  get time(): Date {
    return dateOf(this.#wire.eventTime);
  }

  /** Whether the gateway gave it before: it may have been worked on. */
  get redelivered(): boolean {
    return this.#wire.redelivered;
  }

  /** Which attempt this is, from 1; nacks, leases that ran out and lost streams count. */
  get attempt(): number {
    return this.#wire.attempt;
  }

  /** The user whom it is about: their events come in order. "" for an unknown kind. */
  get userId(): string {
    return this.#wire.kind.value?.userId ?? "";
  }

  /** A user wrote. */
  get message(): InboundMessage | undefined {
    const { kind } = this.#wire;
    return kind.case === "message" ? kind.value : undefined;
  }

  /** A sent message got on. */
  get status(): StatusUpdate | undefined {
    const { kind } = this.#wire;
    return kind.case === "status" ? kind.value : undefined;
  }

  /** How far a sent message has come: "SENT", "DELIVERED", "READ", "FAILED", "EXPIRED". */
  get statusName(): string | undefined {
    return this.status && statusName(this.status.status);
  }

  /** A user has a new identity key. */
  get identityChange(): IdentityChange | undefined {
    const { kind } = this.#wire;
    return kind.case === "identityChange" ? kind.value : undefined;
  }

  /**
   * A message of a user could not be decrypted. With `resendRequested` it comes as a message of the
   * same id once their device has sent it again.
   */
  get undecryptable(): UndecryptableMessage | undefined {
    const { kind } = this.#wire;
    return kind.case === "undecryptable" ? kind.value : undefined;
  }

  /**
   * Why it could not be decrypted: "NO_SESSION", "INVALID", …, "NOT_RESENT" for one that has not come
   * again.
   */
  get undecryptableReason(): string | undefined {
    const lost = this.undecryptable;
    return lost && enumName(UndecryptableMessage_ReasonSchema, lost.reason);
  }

  /** What the user said; set for messages. */
  get content(): Content | undefined {
    return this.message?.content;
  }

  /** The text of a message that has one. */
  get text(): string | undefined {
    const kind = this.content?.kind;
    return kind?.case === "text" ? kind.value.body : undefined;
  }

  /** Done with it: it may be forgotten. Returns at once; acks travel in batches. */
  ack(): void {
    this.#receiver.ack(this);
  }

  /**
   * Could not be worked on: it is to come again, to this receiver or another one, after `delay`
   * seconds (0 to 600), and what follows it of the same user behind it. Counts as a failed attempt.
   * Returns at once. Throws InvalidRequest.
   */
  nack({ delay = 0 } = {}): void {
    checkSeconds(delay, "delay", 0);
    this.#receiver.nack(this, delay);
  }

  /**
   * Needs `seconds` (1 to 600) more from now, when that is longer than the stream's lease, which
   * renews itself. Returns at once. Throws InvalidRequest.
   */
  extend(seconds: number): void {
    checkSeconds(seconds, "seconds", 1);
    this.#receiver.extend(this, seconds);
  }
}

function checkSeconds(seconds: number, field: string, least: number): void {
  if (seconds >= least && seconds <= MAX_SECONDS) return;
  throw new InvalidRequest(field, { field, limit: `${least} to ${MAX_SECONDS} s` });
}
