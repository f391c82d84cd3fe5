"""The errors of the SDK: one tree, sorted by what the caller can do about them.

    LetterlockError
    ├── InvalidRequest       the request is wrong; the same again will be refused again
    │   └── TooLarge, KeyReused, UnknownRecipient, BadPreKeys
    ├── AccessDenied         the token does not reach this
    │   └── Unauthenticated, Forbidden
    ├── NotFound             the named thing does not exist for this caller
    ├── Conflict             the thing is in another state, or its name is taken
    │   └── AlreadyExists, VerificationFailed, DevicesChanged, Replaced,
    │       IdentityUnconfirmed, SafetyNumberMismatch
    ├── Expired              the time-to-live passed
    ├── NotDecrypted         the recipient's device could not decrypt it, sent again or not
    ├── Busy                 a bound was reached; `retry_after` says when to come back
    ├── Unavailable          no connection, or the process is going away: come back
    │   └── DeadlineExceeded
    ├── ServerError          a bug on the other side
    └── DeviceError          this device's own state: not registered, closed, unreadable

`reason` is the name of a letterlock.v1.ErrorReason without its prefix: callers match on it. Texts
hold no content, number, token or key. This module knows neither gRPC nor the generated code.
"""

from __future__ import annotations

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "BadPreKeys",
    "Busy",
    "Conflict",
    "DeadlineExceeded",
    "DeviceError",
    "DevicesChanged",
    "Expired",
    "Forbidden",
    "IdentityUnconfirmed",
    "InvalidRequest",
    "KeyReused",
    "LetterlockError",
    "NotDecrypted",
    "NotFound",
    "Replaced",
    "SafetyNumberMismatch",
    "ServerError",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnknownRecipient",
    "VerificationFailed",
    "error_for",
]


class LetterlockError(Exception):
    """Base of every error that the SDK raises on purpose.

    `field` and `limit` are set for bad input, `retry_after` (seconds) where the same request may
    succeed later, `scope` for refusals on a stream (MESSAGE, RECIPIENT, BUSINESS_NUMBER, SERVICE).
    """

    reason = "INTERNAL"

    def __init__(
        self,
        detail: str,
        *,
        reason: str | None = None,
        field: str = "",
        limit: str = "",
        retry_after: float | None = None,
        scope: str = "",
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        if reason is not None:
            self.reason = reason
        self.field = field
        self.limit = limit
        self.retry_after = retry_after
        self.scope = scope

    def __str__(self) -> str:
        told = not self.limit or self.limit in self.detail
        about = "" if told else f" ({self.field}: {self.limit})"
        return f"{self.reason}: {self.detail}{about}"


class InvalidRequest(LetterlockError):
    """Something about the request is wrong; `field` and `limit` say what."""

    reason = "INVALID_FIELD"


class TooLarge(InvalidRequest):
    """A message is larger than its limit."""

    reason = "TOO_LARGE"


class KeyReused(InvalidRequest):
    """The idempotency key names a different message."""

    reason = "IDEMPOTENCY_KEY_REUSED"


class UnknownRecipient(InvalidRequest):
    """Nobody is registered under this number or id."""

    reason = "UNKNOWN_RECIPIENT"


class BadPreKeys(InvalidRequest):
    """The other side's pre-keys are malformed, or their signatures do not verify."""

    reason = "BAD_PRE_KEYS"


class AccessDenied(LetterlockError):
    """The token is not enough."""


class Unauthenticated(AccessDenied):
    """No token, a wrong one, or a revoked one."""

    reason = "UNAUTHENTICATED"


class Forbidden(AccessDenied):
    """The token is good, but not for this."""

    reason = "FORBIDDEN"


class NotFound(LetterlockError):
    """The named thing does not exist for this caller."""

    reason = "NOT_FOUND"


class Conflict(LetterlockError):
    """The thing is in another state than the request assumes."""

    reason = "CONFLICT"


class AlreadyExists(Conflict):
    """The name or number is taken."""

    reason = "ALREADY_EXISTS"


class VerificationFailed(Conflict):
    """The verification code is wrong, used or expired."""

    reason = "VERIFICATION_FAILED"


class DevicesChanged(Conflict):
    """The recipient's devices kept changing while a message was being encrypted for them."""

    reason = "DEVICES_CHANGED"


class Replaced(Conflict):
    """A newer stream of the same number or device took this one's place; it must not fight back."""

    reason = "REPLACED"


class IdentityUnconfirmed(Conflict):
    """The user's identity key changed: compare safety numbers, then `confirm_identity`."""

    reason = "IDENTITY_UNCONFIRMED"


class SafetyNumberMismatch(Conflict):
    """The user's identity key is not the one that was checked: it changed again, or somebody is in
    between."""

    reason = "SAFETY_NUMBER_MISMATCH"


class Expired(LetterlockError):
    """The time-to-live passed."""

    reason = "EXPIRED"


class NotDecrypted(LetterlockError):
    """The recipient's device could not decrypt the message, however often it was sent again."""

    reason = "UNDECRYPTABLE"


class Busy(LetterlockError):
    """A rate, queue, mailbox or disk is at its bound."""

    reason = "RATE_LIMITED"


class Unavailable(LetterlockError):
    """There is no connection, or what lies behind it cannot work now."""

    reason = "UNAVAILABLE"


class DeadlineExceeded(Unavailable):
    """The call took longer than it was given; it may or may not have been done."""

    reason = "DEADLINE_EXCEEDED"


class ServerError(LetterlockError):
    """A bug on the other side; its log knows more."""

    reason = "INTERNAL"


class DeviceError(LetterlockError):
    """This device's own state does not allow it."""

    reason = "DEVICE_STATE"


_BY_REASON: dict[str, type[LetterlockError]] = {
    "INVALID_FIELD": InvalidRequest,
    "INVALID_PHONE_NUMBER": InvalidRequest,
    "TOO_LARGE": TooLarge,
    "UNEXPECTED_FRAME": InvalidRequest,
    "UNAUTHENTICATED": Unauthenticated,
    "FORBIDDEN": Forbidden,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": AlreadyExists,
    "UNKNOWN_RECIPIENT": UnknownRecipient,
    "IDEMPOTENCY_KEY_REUSED": KeyReused,
    "RATE_LIMITED": Busy,
    "QUEUE_FULL": Busy,
    "STORAGE_FULL": Busy,
    "STORAGE_UNAVAILABLE": Unavailable,
    "RELAY_UNAVAILABLE": Unavailable,
    "BAD_PRE_KEYS": BadPreKeys,
    "EXPIRED": Expired,
    "DRAINING": Unavailable,
    "VERIFICATION_FAILED": VerificationFailed,
    "DEVICES_CHANGED": DevicesChanged,
    "TOO_MANY_DEVICES": Conflict,
    "MAILBOX_FULL": Busy,
    "UNSUPPORTED_CONTENT": InvalidRequest,
    "REPLACED": Replaced,
    "CONFLICT": Conflict,
    "IDENTITY_UNCONFIRMED": IdentityUnconfirmed,
    "SAFETY_NUMBER_MISMATCH": SafetyNumberMismatch,
    "INTERNAL": ServerError,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNDECRYPTABLE": NotDecrypted,
    "DEVICES_GONE": Conflict,
}


def error_for(reason: str) -> type[LetterlockError]:
    """The class of a reason. A reason of a newer server is a LetterlockError, never an INTERNAL."""
    return _BY_REASON.get(reason, LetterlockError)
