"""Unary calls to the relay: every failure becomes an error of our tree, with a reason.

Deadlines are fixed here; nobody waits for a relay without one. Knows no stream and no store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status
from letterlock.relay.v1 import accounts_pb2, accounts_pb2_grpc, keys_pb2, keys_pb2_grpc

from letterlockd.errors import AlreadyExists, CallerError, EnvironmentFault, LetterlockError
from letterlockd.model.ids import AccountId

__all__ = ["RelayCalls", "RelayUnavailable"]

_DEADLINE_SECONDS = 10.0

_MAILBOX = "letterlock.relay.v1.Mailbox"

_RETRY_AFTER_MS = 2_000
"""What first contacts are told while the relay is away; reconnecting takes about that long."""

_Response = TypeVar("_Response")

_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)


class RelayUnavailable(EnvironmentFault):
    """The relay does not answer now; a repeat may succeed after `retry_after_ms`."""

    reason = "RELAY_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("the relay cannot be reached now", retry_after_ms=_RETRY_AFTER_MS)


class RelayCalls:
    """Calls over `channel`, made with the gateway's `credential`."""

    def __init__(self, channel: grpc.aio.Channel, credential: str) -> None:
        self._keys: keys_pb2_grpc.KeysAsyncStub = keys_pb2_grpc.KeysStub(channel)
        self._accounts: accounts_pb2_grpc.AccountsAsyncStub = accounts_pb2_grpc.AccountsStub(
            channel
        )
        # The generated stub has no types for its methods.
        self._check: Callable[..., Awaitable[health_pb2.HealthCheckResponse]] = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._metadata = (("authorization", f"Bearer {credential}"),)

    async def prove(self) -> None:
        """Have the relay say that messages move there. Raises `RelayUnavailable`."""
        request = health_pb2.HealthCheckRequest(service=_MAILBOX)
        answer = await self._call(self._check, request)
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise RelayUnavailable

    async def fetch_bundles(
        self, targets: Sequence[keys_pb2.BundleTarget]
    ) -> list[keys_pb2.BundleResult]:
        """One result for each of 1 to 100 targets, in order."""
        request = keys_pb2.FetchBundlesRequest(targets=targets)
        response = await self._call(self._keys.FetchBundles, request)
        if len(response.results) != len(targets):
            raise RelayUnavailable
        return list(response.results)

    async def upload_pre_keys(
        self, account: AccountId, upload: keys_pb2.PreKeyUpload
    ) -> keys_pb2.GetPreKeyCountResponse:
        """Publish pre-keys of a business number; returns how many one-time keys there are now."""
        request = keys_pb2.UploadPreKeysRequest(account_id=account, pre_keys=upload)
        return (await self._call(self._keys.UploadPreKeys, request)).count

    async def pre_key_count(self, account: AccountId) -> keys_pb2.GetPreKeyCountResponse:
        """How many one-time keys of a business number are left."""
        request = keys_pb2.GetPreKeyCountRequest(account_id=account)
        return await self._call(self._keys.GetPreKeyCount, request)

    async def register_business_number(
        self, request: accounts_pb2.RegisterBusinessNumberRequest
    ) -> AccountId:
        """The account of a business number; the same for the same identity key. Raises
        `AlreadyExists` for a user's number."""
        try:
            response = await self._call(self._accounts.RegisterBusinessNumber, request)
        except CallerError as refused:
            if refused.reason != AlreadyExists.reason:
                raise
            raise AlreadyExists("the number is registered at the relay already") from None
        return AccountId(response.account_id)

    async def set_retention(self, account: AccountId, retention_ms: int) -> None:
        """How long messages to a business number may wait at the relay."""
        request = accounts_pb2.SetBusinessRetentionRequest(account_id=account)
        request.retention.FromMilliseconds(retention_ms)
        await self._call(self._accounts.SetBusinessRetention, request)

    async def remove_business_number(self, account: AccountId) -> None:
        """Remove the account of a business number; again: changes nothing."""
        request = accounts_pb2.RemoveBusinessNumberRequest(account_id=account)
        await self._call(self._accounts.RemoveBusinessNumber, request)

    async def _call(
        self, method: Callable[..., Awaitable[_Response]], request: object
    ) -> _Response:
        try:
            return await method(request, metadata=self._metadata, timeout=_DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise translated(error) from None


def translated(error: grpc.aio.AioRpcError) -> LetterlockError:
    """The relay's status as an error of ours; its text is for the relay's own log."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status is not None else ():
        detail.Unpack(info)
        detail.Unpack(retry)
    if info.domain != "letterlock" or error.code() in _AWAY:
        return RelayUnavailable()
    retry_ms = retry.retry_delay.ToMilliseconds() or None
    return CallerError("the relay refused the call", reason=info.reason, retry_after_ms=retry_ms)
