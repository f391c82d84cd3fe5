"""Refusals of single messages, as the business sees them."""

from __future__ import annotations

from letterlock.v1 import errors_pb2 as wire

from letterlockd.errors import BrokenInvariant, LetterlockError

__all__ = ["of_error", "refuse"]

_SCOPES: dict[wire.ErrorReason.ValueType, wire.RefusalScope.ValueType] = {
    wire.ERROR_REASON_UNKNOWN_RECIPIENT: wire.REFUSAL_SCOPE_RECIPIENT,
    wire.ERROR_REASON_BAD_PRE_KEYS: wire.REFUSAL_SCOPE_RECIPIENT,
    wire.ERROR_REASON_IDENTITY_UNCONFIRMED: wire.REFUSAL_SCOPE_RECIPIENT,
    wire.ERROR_REASON_QUEUE_FULL: wire.REFUSAL_SCOPE_SERVICE,
    wire.ERROR_REASON_STORAGE_FULL: wire.REFUSAL_SCOPE_SERVICE,
    wire.ERROR_REASON_DRAINING: wire.REFUSAL_SCOPE_SERVICE,
}
"""Where a reason reaches further than its message. A relay that is away is not in it: recipients
who are known already are still accepted."""


def refuse(
    reason: wire.ErrorReason.ValueType, detail: str, *, retry_after_ms: int | None = None
) -> wire.Refusal:
    """A refusal for `reason`; `detail` is for a person and holds neither content nor numbers."""
    scope = _SCOPES.get(reason, wire.REFUSAL_SCOPE_MESSAGE)
    answer = wire.Refusal(reason=reason, scope=scope, detail=detail)
    if retry_after_ms is not None:
        answer.retry_after.FromMilliseconds(retry_after_ms)
    return answer


def of_error(error: LetterlockError) -> wire.Refusal:
    """The refusal that `error` is. A reason that is not on the wire is a fault of ours."""
    name = f"ERROR_REASON_{error.reason}"
    if name not in wire.ErrorReason.DESCRIPTOR.values_by_name or isinstance(error, BrokenInvariant):
        return refuse(wire.ERROR_REASON_INTERNAL, "internal error", retry_after_ms=1_000)
    reason = wire.ErrorReason.Value(name)
    return refuse(reason, error.message, retry_after_ms=error.retry_after_ms)
