/**
 * What a business hands over to be sent, and what it gets back: values, checked before they leave.
 *
 * Only what would break a whole stream is checked here; everything else is the gateway's word.
 */

import { randomBytes } from "node:crypto";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { InvalidRequest, type LetterlockError, TooLarge } from "../errors.js";
import { fromRefusal } from "../faults.js";
import type { ContentSchema } from "../generated/letterlock/content/v1/content_pb.js";
import {
  type Accepted,
  OutgoingMessageSchema,
  type OutgoingMessage as WireMessage,
  type SendResult as WireResult,
} from "../generated/letterlock/v1/messaging_pb.js";
import { durationOf } from "../wire.js";

/**
 * The largest message that is tried at all. The gateway refuses smaller ones already, one by one;
 * this bound keeps any single message from overflowing the frame and cutting the stream for all.
 */
const MAX_MESSAGE_BYTES = 256 * 1024;

const MAX_KEY_CHARACTERS = 64;

const USER_ID = /^[0-9a-fA-F]{32}$/;

/** What a message says, as letterlock.content.v1.Content: `{ kind: { case: "text", value: … } }`. */
export type ContentInit = MessageInitShape<typeof ContentSchema>;

/** One message to one user. Either `text` or `content` is given. */
export interface OutgoingMessage {
  /** A phone number in E.164 form (it begins with +), or a user id. */
  readonly to: string;
  readonly text?: string | undefined;
  readonly content?: ContentInit | undefined;
  /** Names the message for good: the same key again sends nothing. Not set: a fresh one. */
  readonly idempotencyKey?: string | undefined;
  /** In seconds. Not set: the business's retention. */
  readonly timeToLive?: number | undefined;
  /** At most 128 bytes that come back with each status update. */
  readonly callerTag?: Uint8Array | undefined;
}

/** What became of one message: `accepted`, or `error` says why not. Exactly one is set. */
export interface SendResult {
  readonly idempotencyKey: string;
  readonly accepted?: Accepted;
  readonly error?: LetterlockError;
}

/**
 * A key that nobody has used: 32 characters of hex. It begins with the time in milliseconds (12
 * characters), with which a gateway finds and writes it cheaply.
 */
export function newIdempotencyKey(): string {
  const time = Date.now().toString(16).padStart(12, "0");
  return time + randomBytes(10).toString("hex");
}

/** The message on the wire. Throws InvalidRequest or TooLarge. */
export function toWire(message: OutgoingMessage, idempotencyKey: string): WireMessage {
  if (idempotencyKey.length < 1 || idempotencyKey.length > MAX_KEY_CHARACTERS) {
    const limit = `1 to ${MAX_KEY_CHARACTERS} characters`;
    throw new InvalidRequest("unusable key", { field: "idempotency_key", limit });
  }
  checkRecipient(message.to);
  const { to, callerTag = new Uint8Array(), timeToLive } = message;
  const wire = create(OutgoingMessageSchema, {
    idempotencyKey,
    callerTag,
    content: contentOf(message),
    recipient: to.startsWith("+")
      ? { case: "phoneNumber", value: to }
      : { case: "userId", value: to },
  });
  if (timeToLive !== undefined) wire.timeToLive = durationOf(timeToLive, "time_to_live");
  if (encodedSize(wire) > MAX_MESSAGE_BYTES) {
    const limit = `${MAX_MESSAGE_BYTES} bytes`;
    throw new TooLarge("message is too large", { field: "message", limit });
  }
  return wire;
}

// What is neither would be taken for a user id, and refused under a name that the caller never wrote.
function checkRecipient(to: unknown): void {
  if (typeof to === "string" && (to.startsWith("+") || USER_ID.test(to))) return;
  const limit = "a phone number (+ and 7 to 15 digits) or a user id of 32 hex characters";
  throw new InvalidRequest("`to` is neither a phone number nor a user id", { field: "to", limit });
}

/** Size of a message on the wire, in bytes. */
export function sizeOf(message: WireMessage): number {
  return toBinary(OutgoingMessageSchema, message).length;
}

/** The gateway's answer as a value. */
export function toResult({ idempotencyKey, outcome }: WireResult): SendResult {
  if (outcome.case === "accepted") return { idempotencyKey, accepted: outcome.value };
  if (outcome.case === "refused") return { idempotencyKey, error: fromRefusal(outcome.value) };
  const limit = "accepted or refused";
  return { idempotencyKey, error: new InvalidRequest("no outcome", { field: "outcome", limit }) };
}

// Callers without a type checker can hand over anything.
function encodedSize(message: WireMessage): number {
  try {
    return sizeOf(message);
  } catch {
    const limit = "the types of OutgoingMessage";
    throw new InvalidRequest("cannot be encoded", { field: "message", limit });
  }
}

function contentOf({ text, content }: OutgoingMessage): ContentInit {
  if ((text === undefined) === (content === undefined)) {
    const limit = "text or content, one";
    throw new InvalidRequest("nothing to say", { field: "content", limit });
  }
  return content ?? { kind: { case: "text", value: { body: text ?? "" } } };
}
