"""Serves `letterlock.relay.v1.Accounts`: requests to the relay's rooms and their answers back."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from letterlock.relay.v1 import accounts_pb2, accounts_pb2_grpc

from letterlockd.relay.registration import Registered
from letterlockd.relay.room import Relay
from letterlockd.rpc.relay_caller import calling_device, calling_gateway

__all__ = ["AccountsServicer"]

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class AccountsServicer(accounts_pb2_grpc.AccountsServicer):
    """See proto/letterlock/relay/v1/accounts.proto."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def RequestVerification(  # noqa: N802
        self, request: accounts_pb2.RequestVerificationRequest, context: _Context
    ) -> accounts_pb2.RequestVerificationResponse:
        """Open to all."""
        sent = await self._relay.verifications.request(request.phone_number)
        return accounts_pb2.RequestVerificationResponse(
            verification_id=sent.verification_id, expire_time=_time(sent.expires_at_ms)
        )

    async def Register(  # noqa: N802
        self, request: accounts_pb2.RegisterRequest, context: _Context
    ) -> accounts_pb2.RegisterResponse:
        """Open to all."""
        return _registered(await self._relay.registration.register(request))

    async def CreateDeviceLink(  # noqa: N802
        self, request: accounts_pb2.CreateDeviceLinkRequest, context: _Context
    ) -> accounts_pb2.CreateDeviceLinkResponse:
        """Device 1."""
        link = await self._relay.devices.create_link(calling_device())
        return accounts_pb2.CreateDeviceLinkResponse(
            link_token=link.token, expire_time=_time(link.expires_at_ms)
        )

    async def LinkDevice(  # noqa: N802
        self, request: accounts_pb2.LinkDeviceRequest, context: _Context
    ) -> accounts_pb2.RegisterResponse:
        """Open to all: the link token is what it takes."""
        return _registered(await self._relay.devices.link(request))

    async def ListDevices(  # noqa: N802
        self, request: accounts_pb2.ListDevicesRequest, context: _Context
    ) -> accounts_pb2.ListDevicesResponse:
        """Devices."""
        account = await self._relay.devices.own(calling_device())
        return accounts_pb2.ListDevicesResponse(
            devices=[
                accounts_pb2.Device(
                    device_id=device.device_id,
                    registration_id=device.registration_id,
                    create_time=_time(device.created_ms),
                )
                for device in account.devices.values()
            ]
        )

    async def RemoveDevice(  # noqa: N802
        self, request: accounts_pb2.RemoveDeviceRequest, context: _Context
    ) -> accounts_pb2.RemoveDeviceResponse:
        """Device 1, or the device itself."""
        await self._relay.devices.remove(calling_device(), request.device_id)
        return accounts_pb2.RemoveDeviceResponse()

    async def DeleteAccount(  # noqa: N802
        self, request: accounts_pb2.DeleteAccountRequest, context: _Context
    ) -> accounts_pb2.DeleteAccountResponse:
        """Device 1."""
        await self._relay.devices.delete_account(calling_device())
        return accounts_pb2.DeleteAccountResponse()

    async def RegisterBusinessNumber(  # noqa: N802
        self, request: accounts_pb2.RegisterBusinessNumberRequest, context: _Context
    ) -> accounts_pb2.RegisterBusinessNumberResponse:
        """Gateways."""
        caller = calling_gateway()
        mailbox = self._relay.gateway_mailboxes[caller.gateway_id]
        account_id = await self._relay.registration.register_business(caller, mailbox, request)
        return accounts_pb2.RegisterBusinessNumberResponse(account_id=account_id)

    async def SetBusinessRetention(  # noqa: N802
        self, request: accounts_pb2.SetBusinessRetentionRequest, context: _Context
    ) -> accounts_pb2.SetBusinessRetentionResponse:
        """Gateways."""
        await self._relay.registration.set_retention(
            calling_gateway(), request.account_id, request.retention
        )
        return accounts_pb2.SetBusinessRetentionResponse()

    async def RemoveBusinessNumber(  # noqa: N802
        self, request: accounts_pb2.RemoveBusinessNumberRequest, context: _Context
    ) -> accounts_pb2.RemoveBusinessNumberResponse:
        """Gateways."""
        await self._relay.registration.remove_business(calling_gateway(), request.account_id)
        return accounts_pb2.RemoveBusinessNumberResponse()


def _registered(device: Registered) -> accounts_pb2.RegisterResponse:
    return accounts_pb2.RegisterResponse(
        account_id=device.account_id, device_id=device.device_id, credential=device.credential
    )


def _time(milliseconds: int) -> Timestamp:
    time = Timestamp()
    time.FromMilliseconds(milliseconds)
    return time
