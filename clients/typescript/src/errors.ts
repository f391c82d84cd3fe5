/**
 * The errors of the SDK: one tree, sorted by what the caller can do about them.
 *
 *     LetterlockError
 *     ├── InvalidRequest       the request is wrong; the same again will be refused again
 *     │   └── TooLarge, KeyReused, UnknownRecipient, BadPreKeys
 *     ├── AccessDenied         the token does not reach this
 *     │   └── Unauthenticated, Forbidden
 *     ├── NotFound             the named thing does not exist for this caller
 *     ├── Conflict             the thing is in another state, or its name is taken
 *     │   └── AlreadyExists, VerificationFailed, DevicesChanged, Replaced,
 *     │       IdentityUnconfirmed, SafetyNumberMismatch
 *     ├── Expired              the time-to-live passed
 *     ├── NotDecrypted         the recipient's device could not decrypt it, sent again or not
 *     ├── Busy                 a bound was reached; `retryAfter` says when to come back
 *     ├── Unavailable          no connection, or the process is going away: come back
 *     │   └── DeadlineExceeded
 *     ├── ServerError          a bug on the other side
 *     └── DeviceError          this device's own state: not registered, closed, unreadable
 *
 * `reason` is the name of a letterlock.v1.ErrorReason without its prefix: callers match on it. Texts
 * hold no content, number, token or key. This module knows neither gRPC nor the generated code.
 */

/** What an error tells beside its sentence. */
export interface ErrorDetails {
  /** The name of an ErrorReason without its prefix. */
  reason?: string;
  /** The field at fault, for bad input. */
  field?: string;
  /** The limit that was passed, for bad input. */
  limit?: string;
  /** Seconds after which the same request may succeed. */
  retryAfter?: number | undefined;
  /** For refusals on a stream: MESSAGE, RECIPIENT, BUSINESS_NUMBER, SERVICE. */
  scope?: string;
  /** The bug behind it, where there is one. */
  cause?: unknown;
}

/** Base of every error that the SDK throws on purpose. */
export class LetterlockError extends Error {
  /** The reason of an error of this class that names none. */
  static readonly reason: string = "INTERNAL";

  readonly reason: string;
  readonly detail: string;
  readonly field: string;
  readonly limit: string;
  readonly retryAfter: number | undefined;
  readonly scope: string;

  constructor(detail: string, details: ErrorDetails = {}) {
    const reason = details.reason ?? new.target.reason;
    const { field = "", limit = "" } = details;
    const about = limit && !detail.includes(limit) ? ` (${field}: ${limit})` : "";
    super(
      `${reason}: ${detail}${about}`,
      "cause" in details ? { cause: details.cause } : undefined,
    );
    this.name = new.target.name;
    this.reason = reason;
    this.detail = detail;
    this.field = field;
    this.limit = limit;
    this.retryAfter = details.retryAfter;
    this.scope = details.scope ?? "";
  }
}

/** Something about the request is wrong; `field` and `limit` say what. */
export class InvalidRequest extends LetterlockError {
  static override readonly reason: string = "INVALID_FIELD";
}

/** A message is larger than its limit. */
export class TooLarge extends InvalidRequest {
  static override readonly reason: string = "TOO_LARGE";
}

/** The idempotency key names a different message. */
export class KeyReused extends InvalidRequest {
  static override readonly reason: string = "IDEMPOTENCY_KEY_REUSED";
}

/** Nobody is registered under this number or id. */
export class UnknownRecipient extends InvalidRequest {
  static override readonly reason: string = "UNKNOWN_RECIPIENT";
}

/** The other side's pre-keys are malformed, or their signatures do not verify. */
export class BadPreKeys extends InvalidRequest {
  static override readonly reason: string = "BAD_PRE_KEYS";
}

/** The token is not enough. */
export class AccessDenied extends LetterlockError {}

/** No token, a wrong one, or a revoked one. */
export class Unauthenticated extends AccessDenied {
  static override readonly reason: string = "UNAUTHENTICATED";
}

/** The token is good, but not for this. */
export class Forbidden extends AccessDenied {
  static override readonly reason: string = "FORBIDDEN";
}

/** The named thing does not exist for this caller. */
export class NotFound extends LetterlockError {
  static override readonly reason: string = "NOT_FOUND";
}

/** The thing is in another state than the request assumes. */
export class Conflict extends LetterlockError {
  static override readonly reason: string = "CONFLICT";
}

/** The name or number is taken. */
export class AlreadyExists extends Conflict {
  static override readonly reason: string = "ALREADY_EXISTS";
}

/** The verification code is wrong, used or expired. */
export class VerificationFailed extends Conflict {
  static override readonly reason: string = "VERIFICATION_FAILED";
}

/** The recipient's devices kept changing while a message was being encrypted for them. */
export class DevicesChanged extends Conflict {
  static override readonly reason: string = "DEVICES_CHANGED";
}

/** A newer stream of the same number or device took this one's place; it must not fight back. */
export class Replaced extends Conflict {
  static override readonly reason: string = "REPLACED";
}

/** The user's identity key changed: compare safety numbers, then `confirmIdentity`. */
export class IdentityUnconfirmed extends Conflict {
  static override readonly reason: string = "IDENTITY_UNCONFIRMED";
}

/**
 * The user's identity key is not the one that was checked: it changed again, or somebody is in
 * between.
 */
export class SafetyNumberMismatch extends Conflict {
  static override readonly reason: string = "SAFETY_NUMBER_MISMATCH";
}

/** The recipient's device could not decrypt the message, however often it was sent again. */
export class NotDecrypted extends LetterlockError {
  static override readonly reason: string = "UNDECRYPTABLE";
}

/** The time-to-live passed. */
export class Expired extends LetterlockError {
  static override readonly reason: string = "EXPIRED";
}

/** A rate, queue, mailbox or disk is at its bound. */
export class Busy extends LetterlockError {
  static override readonly reason: string = "RATE_LIMITED";
}

/** There is no connection, or what lies behind it cannot work now. */
export class Unavailable extends LetterlockError {
  static override readonly reason: string = "UNAVAILABLE";
}

/** The call took longer than it was given; it may or may not have been done. */
export class DeadlineExceeded extends Unavailable {
  static override readonly reason: string = "DEADLINE_EXCEEDED";
}

/** A bug on the other side; its log knows more. */
export class ServerError extends LetterlockError {
  static override readonly reason: string = "INTERNAL";
}

/** This device's own state does not allow it. */
export class DeviceError extends LetterlockError {
  static override readonly reason: string = "DEVICE_STATE";
}

type ErrorClass = new (detail: string, details?: ErrorDetails) => LetterlockError;

const BY_REASON: ReadonlyMap<string, ErrorClass> = new Map<string, ErrorClass>([
  ["INVALID_FIELD", InvalidRequest],
  ["INVALID_PHONE_NUMBER", InvalidRequest],
  ["TOO_LARGE", TooLarge],
  ["UNEXPECTED_FRAME", InvalidRequest],
  ["UNAUTHENTICATED", Unauthenticated],
  ["FORBIDDEN", Forbidden],
  ["NOT_FOUND", NotFound],
  ["ALREADY_EXISTS", AlreadyExists],
  ["UNKNOWN_RECIPIENT", UnknownRecipient],
  ["IDEMPOTENCY_KEY_REUSED", KeyReused],
  ["RATE_LIMITED", Busy],
  ["QUEUE_FULL", Busy],
  ["STORAGE_FULL", Busy],
  ["STORAGE_UNAVAILABLE", Unavailable],
  ["RELAY_UNAVAILABLE", Unavailable],
  ["BAD_PRE_KEYS", BadPreKeys],
  ["EXPIRED", Expired],
  ["DRAINING", Unavailable],
  ["VERIFICATION_FAILED", VerificationFailed],
  ["DEVICES_CHANGED", DevicesChanged],
  ["TOO_MANY_DEVICES", Conflict],
  ["MAILBOX_FULL", Busy],
  ["UNSUPPORTED_CONTENT", InvalidRequest],
  ["REPLACED", Replaced],
  ["CONFLICT", Conflict],
  ["IDENTITY_UNCONFIRMED", IdentityUnconfirmed],
  ["SAFETY_NUMBER_MISMATCH", SafetyNumberMismatch],
  ["UNDECRYPTABLE", NotDecrypted],
  ["DEVICES_GONE", Conflict],
  ["INTERNAL", ServerError],
  ["DEADLINE_EXCEEDED", DeadlineExceeded],
]);

/** The class of a reason. A reason of a newer server is a LetterlockError, never an INTERNAL. */
export function errorFor(reason: string): ErrorClass {
  return BY_REASON.get(reason) ?? LetterlockError;
}
