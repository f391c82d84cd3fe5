"""Turns what arrives over gRPC, a failed call or a Refusal, into the SDK's errors.

Knows the error domain of errors.proto; knows nothing of what was asked for.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from letterlock.enums import enum_name
from letterlock.errors import (
    DeadlineExceeded,
    LetterlockError,
    ServerError,
    Unauthenticated,
    Unavailable,
    error_for,
)
from letterlock.v1 import errors_pb2

DOMAIN = "letterlock"

_REFUSED = re.compile(r"failed to connect to all addresses.*\bipv[46]:(\S+): .*Connection refused")

# A status without our details was made by gRPC or a proxy: the connection's doing, not an answer.
_BARE: dict[grpc.StatusCode, type[LetterlockError]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: ServerError,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
}


def from_rpc(error: grpc.aio.AioRpcError) -> LetterlockError:
    """The error that a failed call stands for. Never raises."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # has the methods it reads
    except ValueError:  # details that contradict the status they came with
        return _bare(error)
    info, retry_after = error_details_pb2.ErrorInfo(), None
    for detail in status.details if status is not None else ():
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = seconds(retry.retry_delay)
        elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
    if info.domain != DOMAIN:
        return _bare(error)
    return error_for(info.reason)(
        error.details() or info.reason,
        reason=info.reason,
        field=info.metadata.get("field", ""),
        limit=info.metadata.get("limit", ""),
        retry_after=retry_after,
    )


def from_refusal(refusal: errors_pb2.Refusal) -> LetterlockError:
    """The error that a refusal on a stream stands for."""
    reason = reason_name(refusal.reason)
    return error_for(reason)(
        refusal.detail or reason,
        reason=reason,
        field=refusal.field,
        limit=refusal.limit,
        retry_after=seconds(refusal.retry_after) if refusal.HasField("retry_after") else None,
        scope=enum_name(errors_pb2.RefusalScope, refusal.scope, "REFUSAL_SCOPE_"),
    )


def reason_name(reason: int) -> str:
    """The name of an ErrorReason without its prefix; of an unknown one its number."""
    return enum_name(errors_pb2.ErrorReason, reason, "ERROR_REASON_")


def seconds(duration: duration_pb2.Duration) -> float:
    """A Duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def _bare(error: grpc.aio.AioRpcError) -> LetterlockError:
    made = _BARE.get(error.code(), Unavailable)
    detail = error.details() or error.code().name
    if (refused := _REFUSED.search(detail)) is not None:
        detail = f"nothing answers at {unquote(refused[1])}"
    return made(detail, reason=error.code().name)
