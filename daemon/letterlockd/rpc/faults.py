"""The one table from our errors to what callers see.

A fault of a call becomes a gRPC status with google.rpc.ErrorInfo (domain "letterlock", reason, and
`field` and `limit` for bad input) and, where a repeat may succeed, google.rpc.RetryInfo. What
became of one message on a stream becomes a `Refusal`. Knows the error tree and the wire enum, and
nothing of any servicer. A test walks both and fails when one has a member that the other lacks.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from letterlock.v1 import errors_pb2

from letterlockd.errors import (
    BrokenInvariant,
    BusyError,
    CallerError,
    EnvironmentFault,
    LetterlockError,
)

__all__ = ["DOMAIN", "STATUS_OF_REASON", "leaves", "refusal", "to_status", "unwrap", "wire_reason"]

DOMAIN = "letterlock"
"""ErrorInfo.domain of every fault."""

_BUG_TEXT = "internal error"
_OPERATOR_TEXT = "the service cannot do this now; its operator can see why"

_Code = grpc.StatusCode

STATUS_OF_REASON: dict[str, grpc.StatusCode] = {
    "INVALID_FIELD": _Code.INVALID_ARGUMENT,
    "INVALID_PHONE_NUMBER": _Code.INVALID_ARGUMENT,
    "TOO_LARGE": _Code.INVALID_ARGUMENT,
    "UNEXPECTED_FRAME": _Code.INVALID_ARGUMENT,
    "UNSUPPORTED_CONTENT": _Code.INVALID_ARGUMENT,
    "UNAUTHENTICATED": _Code.UNAUTHENTICATED,
    "FORBIDDEN": _Code.PERMISSION_DENIED,
    "VERIFICATION_FAILED": _Code.PERMISSION_DENIED,
    "NOT_FOUND": _Code.NOT_FOUND,
    "UNKNOWN_RECIPIENT": _Code.NOT_FOUND,
    "ALREADY_EXISTS": _Code.ALREADY_EXISTS,
    "IDEMPOTENCY_KEY_REUSED": _Code.ALREADY_EXISTS,
    "BAD_PRE_KEYS": _Code.FAILED_PRECONDITION,
    "EXPIRED": _Code.FAILED_PRECONDITION,
    "DEVICES_CHANGED": _Code.FAILED_PRECONDITION,
    "TOO_MANY_DEVICES": _Code.FAILED_PRECONDITION,
    "REPLACED": _Code.FAILED_PRECONDITION,
    "CONFLICT": _Code.FAILED_PRECONDITION,
    "IDENTITY_UNCONFIRMED": _Code.FAILED_PRECONDITION,
    "SAFETY_NUMBER_MISMATCH": _Code.FAILED_PRECONDITION,
    "UNDECRYPTABLE": _Code.FAILED_PRECONDITION,
    "DEVICES_GONE": _Code.FAILED_PRECONDITION,
    "RATE_LIMITED": _Code.RESOURCE_EXHAUSTED,
    "QUEUE_FULL": _Code.RESOURCE_EXHAUSTED,
    "STORAGE_FULL": _Code.RESOURCE_EXHAUSTED,
    "MAILBOX_FULL": _Code.RESOURCE_EXHAUSTED,
    "STORAGE_UNAVAILABLE": _Code.UNAVAILABLE,
    "RELAY_UNAVAILABLE": _Code.UNAVAILABLE,
    "DRAINING": _Code.UNAVAILABLE,
    "INTERNAL": _Code.INTERNAL,
    "DEADLINE_EXCEEDED": _Code.DEADLINE_EXCEEDED,
}
"""gRPC status code of every ErrorReason, by its name without prefix."""

_REASON_OF_CLASS: tuple[tuple[type[LetterlockError], str], ...] = (
    (CallerError, "INVALID_FIELD"),
    (BusyError, "QUEUE_FULL"),
    (EnvironmentFault, "STORAGE_UNAVAILABLE"),
    (LetterlockError, "INTERNAL"),
)
"""What a reason that only operators see (a foreign folder, a wrong key) looks like from outside."""


def wire_reason(error: LetterlockError) -> str:
    """The reason that callers see: the error's own if it is on the wire, or that of its branch."""
    if error.reason in STATUS_OF_REASON:
        return error.reason
    return next(reason for kind, reason in _REASON_OF_CLASS if isinstance(error, kind))


def to_status(error: LetterlockError, *, request_id: str | None = None) -> grpc.Status:
    """The status to end a call with. `request_id` joins the answer to the log line of a bug."""
    reason = wire_reason(error)
    metadata = dict(error.metadata)
    if request_id is not None:
        metadata["request_id"] = request_id
    status = status_pb2.Status(code=STATUS_OF_REASON[reason].value[0], message=_public_text(error))
    _attach(status, error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    if error.retry_after_ms is not None:
        delay = _duration(error.retry_after_ms)
        _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
    answer: grpc.Status = rpc_status.to_status(status)
    return answer


def refusal(
    error: LetterlockError,
    scope: errors_pb2.RefusalScope.ValueType = errors_pb2.REFUSAL_SCOPE_MESSAGE,
) -> errors_pb2.Refusal:
    """The answer about one thing on a stream; the stream goes on."""
    retry = error.retry_after_ms
    return errors_pb2.Refusal(
        reason=errors_pb2.ErrorReason.Value(f"ERROR_REASON_{wire_reason(error)}"),
        scope=scope,
        detail=_public_text(error),
        field=error.metadata.get("field", ""),
        limit=error.metadata.get("limit", ""),
        retry_after=None if retry is None else _duration(retry),
    )


def unwrap(error: Exception) -> LetterlockError | None:
    """Our error inside `error`, if that is all it holds: a TaskGroup wraps what its tasks raise.
    None when anything in it was not raised on purpose."""
    found = list(leaves(error))
    ours = [leaf for leaf in found if isinstance(leaf, LetterlockError)]
    return ours[0] if len(ours) == len(found) else None


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group and in the groups of which it is made; of any other, itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def _public_text(error: LetterlockError) -> str:
    if isinstance(error, BrokenInvariant):
        return _BUG_TEXT
    if isinstance(error, EnvironmentFault) and error.reason not in STATUS_OF_REASON:
        return _OPERATOR_TEXT
    return error.message


def _attach(
    status: status_pb2.Status, detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo
) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _duration(milliseconds: int) -> duration_pb2.Duration:
    seconds, rest = divmod(milliseconds, 1000)
    return duration_pb2.Duration(seconds=seconds, nanos=rest * 1_000_000)
