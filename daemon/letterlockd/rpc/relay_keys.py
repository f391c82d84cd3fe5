"""Serves `letterlock.relay.v1.Keys`: requests to the relay's rooms and their answers back."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc
from letterlock.relay.v1 import keys_pb2, keys_pb2_grpc

from letterlockd.errors import Forbidden, InvalidField
from letterlockd.relay.accounts import Account, Device
from letterlockd.relay.credentials import DeviceCaller
from letterlockd.relay.prekeys import KeyCount
from letterlockd.relay.room import Relay
from letterlockd.rpc.relay_caller import calling

__all__ = ["KeysServicer"]

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class KeysServicer(keys_pb2_grpc.KeysServicer):
    """See proto/letterlock/relay/v1/keys.proto."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def UploadPreKeys(  # noqa: N802
        self, request: keys_pb2.UploadPreKeysRequest, context: _Context
    ) -> keys_pb2.UploadPreKeysResponse:
        """Devices, and gateways for their business accounts."""
        account, device = await self._own_device(request.account_id)
        count = await self._relay.pre_keys.upload(account, device, request.pre_keys)
        return keys_pb2.UploadPreKeysResponse(count=_count(count))

    async def GetPreKeyCount(  # noqa: N802
        self, request: keys_pb2.GetPreKeyCountRequest, context: _Context
    ) -> keys_pb2.GetPreKeyCountResponse:
        """Devices, and gateways for their business accounts."""
        _, device = await self._own_device(request.account_id)
        return _count(await self._relay.pre_keys.count(device))

    async def FetchBundles(  # noqa: N802
        self, request: keys_pb2.FetchBundlesRequest, context: _Context
    ) -> keys_pb2.FetchBundlesResponse:
        """Devices and gateways."""
        results = await self._relay.bundles.fetch(calling(), request.targets)
        return keys_pb2.FetchBundlesResponse(results=results)

    async def _own_device(self, account_id: bytes) -> tuple[Account, Device]:
        caller = calling()
        if isinstance(caller, DeviceCaller):
            if account_id:
                raise InvalidField("account_id", "only gateways set it")
            account = await self._relay.devices.own(caller)
            return account, account.devices[caller.device_id]
        if len(account_id) != 16:
            raise InvalidField("account_id", "must be 16 bytes")
        business = await self._relay.directory.get(account_id)
        if business is None or business.gateway_id != caller.gateway_id:
            raise Forbidden("not an account of this gateway")
        return business, business.devices[1]


def _count(count: KeyCount) -> keys_pb2.GetPreKeyCountResponse:
    return keys_pb2.GetPreKeyCountResponse(
        one_time_pre_keys=count.one_time, one_time_kyber_pre_keys=count.one_time_kyber
    )
