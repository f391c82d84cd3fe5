/** One event of a Receive stream in the caller's hands. */

import type { Content } from "../generated/letterlock/content/v1/content_pb.js";
import {
  type IdentityChange,
  type InboundMessage,
  type MessageStatus,
  MessageStatusSchema,
  type StatusUpdate,
  type UndecryptableMessage,
  type Event as WireEvent,
} from "../generated/letterlock/v1/messaging_pb.js";
import { dateOf, enumName } from "../wire.js";

/** ACCEPTED, SENT, ...; of a status of a newer gateway the number. */
export function statusName(status: MessageStatus): string {
  return enumName(MessageStatusSchema, status);
}

/**
 * Something that happened to a business number.
 *
 * The event is given again, also to the next process, until `ack()` has reached the gateway; keep
 * what you need of it first. It shows nothing of itself to console.log.
 */
export class Event {
  readonly #wire: WireEvent;
  readonly #ack: (eventId: string) => void;

  constructor(wire: WireEvent, ack: (eventId: string) => void) {
    this.#wire = wire;
    this.#ack = ack;
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

  /** A message of a user was lost. */
  get undecryptable(): UndecryptableMessage | undefined {
    const { kind } = this.#wire;
    return kind.case === "undecryptable" ? kind.value : undefined;
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
    this.#ack(this.#wire.eventId);
  }
}
