"""Answers about one thing in a call or on a stream; the rest goes on."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from letterlock.v1 import errors_pb2
from letterlock.v1.errors_pb2 import Refusal

__all__ = [
    "invalid",
    "mailbox_full",
    "rate_limited",
    "refused",
    "storage_full",
    "unknown_recipient",
]

_MESSAGE = errors_pb2.REFUSAL_SCOPE_MESSAGE
_RECIPIENT = errors_pb2.REFUSAL_SCOPE_RECIPIENT
_SERVICE = errors_pb2.REFUSAL_SCOPE_SERVICE


def refused(
    reason: errors_pb2.ErrorReason.ValueType,
    detail: str,
    scope: errors_pb2.RefusalScope.ValueType = _MESSAGE,
    *,
    retry_after_ms: int | None = None,
) -> Refusal:
    """A refusal for `reason`; `detail` never holds content or a number."""
    wait = None if retry_after_ms is None else Duration()
    if wait is not None and retry_after_ms is not None:
        wait.FromMilliseconds(retry_after_ms)
    return Refusal(reason=reason, scope=scope, detail=detail, retry_after=wait)


def invalid(field: str, limit: str) -> Refusal:
    """A field past its limit."""
    return Refusal(
        reason=errors_pb2.ERROR_REASON_INVALID_FIELD,
        scope=_MESSAGE,
        detail=f"{field}: {limit}",
        field=field,
        limit=limit,
    )


def unknown_recipient() -> Refusal:
    """No such account, or it has none of the devices."""
    detail = "nobody is registered under this number or id"
    return refused(errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT, detail, _RECIPIENT)


def rate_limited(retry_after_ms: int) -> Refusal:
    """Too fast."""
    detail = "too many at a time"
    reason = errors_pb2.ERROR_REASON_RATE_LIMITED
    return refused(reason, detail, retry_after_ms=retry_after_ms)


def mailbox_full(retry_after_ms: int) -> Refusal:
    """The recipient takes nothing more until it has taken what waits."""
    reason = errors_pb2.ERROR_REASON_MAILBOX_FULL
    return refused(reason, "the mailbox is full", _RECIPIENT, retry_after_ms=retry_after_ms)


def storage_full(retry_after_ms: int) -> Refusal:
    """No space on the disk."""
    reason = errors_pb2.ERROR_REASON_STORAGE_FULL
    return refused(reason, "no space is left", _SERVICE, retry_after_ms=retry_after_ms)
