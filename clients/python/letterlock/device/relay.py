"""The single calls that a device makes to its relay: account, devices, pre-keys.

Turns statuses and refusals into LetterlockError, and repeats what is safe to repeat. Keeps no
state of the device.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc.aio

from letterlock.calls import Calls
from letterlock.channel import bearer
from letterlock.device.mailbox import MailboxCall
from letterlock.errors import ServerError
from letterlock.faults import from_refusal
from letterlock.reconnect import Sleep
from letterlock.relay.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    mailbox_pb2_grpc,
)
from letterlock.retry import RetryPolicy


class Relay:
    """The relay as one device sees it. `credential` is set once the device has one."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        deadline: float,
        retry: RetryPolicy,
        jitter: Callable[[], float],
        sleep: Sleep,
    ) -> None:
        """`deadline`: seconds for each call."""
        self._accounts: accounts_pb2_grpc.AccountsAsyncStub = accounts_pb2_grpc.AccountsStub(
            channel
        )
        self._keys: keys_pb2_grpc.KeysAsyncStub = keys_pb2_grpc.KeysStub(channel)
        self._mailbox: mailbox_pb2_grpc.MailboxAsyncStub = mailbox_pb2_grpc.MailboxStub(channel)
        self._calls = Calls(deadline=deadline, retry=retry, jitter=jitter, sleep=sleep)

    def use_credential(self, credential: str) -> None:
        """Authenticate as a device from now on."""
        self._calls.metadata = bearer(credential)

    def connect(self) -> MailboxCall:
        """A new Mailbox.Connect stream."""
        return self._mailbox.Connect(metadata=self._calls.metadata)

    async def request_verification(
        self, phone_number: str
    ) -> accounts_pb2.RequestVerificationResponse:
        """Have a code sent. Tried once: every try sends another."""
        request = accounts_pb2.RequestVerificationRequest(phone_number=phone_number)
        return await self._calls.once(self._accounts.RequestVerification, request)

    async def register(
        self, request: accounts_pb2.RegisterRequest
    ) -> accounts_pb2.RegisterResponse:
        """Make the account. Tried once: a code is good for one try."""
        return await self._calls.once(self._accounts.Register, request)

    async def link_device(
        self, request: accounts_pb2.LinkDeviceRequest
    ) -> accounts_pb2.RegisterResponse:
        """Join an account. Tried once: a link token is good for one device."""
        return await self._calls.once(self._accounts.LinkDevice, request)

    async def create_device_link(self) -> accounts_pb2.CreateDeviceLinkResponse:
        """A token for a further device."""
        request = accounts_pb2.CreateDeviceLinkRequest()
        return await self._calls.once(self._accounts.CreateDeviceLink, request)

    async def list_devices(self) -> accounts_pb2.ListDevicesResponse:
        """The devices of the account."""
        request = accounts_pb2.ListDevicesRequest()
        return await self._calls.repeated(self._accounts.ListDevices, request)

    async def remove_device(self, device_id: int) -> None:
        """Remove a further device of the account."""
        request = accounts_pb2.RemoveDeviceRequest(device_id=device_id)
        await self._calls.once(self._accounts.RemoveDevice, request)

    async def delete_account(self) -> None:
        """Remove the account."""
        request = accounts_pb2.DeleteAccountRequest()
        await self._calls.once(self._accounts.DeleteAccount, request)

    async def fetch_bundles(self, target: keys_pb2.BundleTarget) -> keys_pb2.AccountBundles:
        """Bundles of one account. Raises UnknownRecipient, Busy."""
        request = keys_pb2.FetchBundlesRequest(targets=[target])
        answer = await self._calls.repeated(self._keys.FetchBundles, request)
        if len(answer.results) != 1:
            raise ServerError("not one answer for one target")
        result = answer.results[0]
        if not result.HasField("bundles"):
            raise from_refusal(result.refused)
        return result.bundles

    async def pre_key_count(self) -> keys_pb2.GetPreKeyCountResponse:
        """One-time keys left in the directory."""
        request = keys_pb2.GetPreKeyCountRequest()
        return await self._calls.repeated(self._keys.GetPreKeyCount, request)

    async def upload_pre_keys(self, upload: keys_pb2.PreKeyUpload) -> None:
        """Publish keys. The same upload again changes nothing."""
        request = keys_pb2.UploadPreKeysRequest(pre_keys=upload)
        await self._calls.repeated(self._keys.UploadPreKeys, request)
