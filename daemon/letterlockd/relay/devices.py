"""The devices of an account: linking a further one, listing, removing, and the end of an account.

Device 1 decides: it alone makes links, removes other devices and deletes the account, so that a
stolen linked device can take away no more than itself.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from letterlock.relay.v1.accounts_pb2 import LinkDeviceRequest

from letterlockd.clock import Clock
from letterlockd.errors import (
    BusyError,
    Conflict,
    Forbidden,
    InvalidField,
    NotFound,
    Unauthenticated,
)
from letterlockd.records.v1.relay_pb2 import PendingLink
from letterlockd.relay.accounts import MAX_DEVICE_ID, Account, Device
from letterlockd.relay.credentials import DeviceCaller, device_credential, secret_text
from letterlockd.relay.directory import Change, Directory
from letterlockd.relay.prekeys import check_upload
from letterlockd.relay.rates import RateLimiter
from letterlockd.relay.registration import Registered, check_registration_id
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.tables import LINKS
from letterlockd.store.port import Check, Delete, Put, Store

__all__ = ["Devices", "Link"]

_FIRST_DEVICE = 1
_MAX_TOKEN_CHARS = 64


class Link(NamedTuple):
    """A link token and until when it is good."""

    token: str
    expires_at_ms: int

    def __repr__(self) -> str:
        return f"Link(expires_at_ms={self.expires_at_ms})"


class Devices:
    """Changes of an account's device list. `Unauthenticated` when the caller was just removed."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        clock: Clock,
        random: Callable[[int], bytes],
        settings: RelaySettings,
    ) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._random = random
        self._settings = settings
        self._limits = RateLimiter(settings.cached_buckets)

    async def create_link(self, caller: DeviceCaller) -> Link:
        """A token for one further device. Raises `Forbidden`, `Conflict`, `BusyError`."""
        _check_first(caller, "only device 1 can link a device")
        self._check_free_id(await self.own(caller))
        rate, now = self._settings.links_per_account, self._clock.monotonic()
        if wait := self._limits.take(caller.account_id, rate, now):
            raise BusyError("too many links", retry_after_ms=wait, reason="RATE_LIMITED")
        token = secret_text(self._random)
        expires_at_ms = self._clock.now_ms() + self._settings.link_ms
        link = PendingLink(account=caller.account_id).SerializeToString()
        await self._store.commit([[Put(LINKS, _token_key(token), link, expires_at_ms)]])
        return Link(token, expires_at_ms)

    async def link(self, request: LinkDeviceRequest) -> Registered:
        """Join the account of a link token.

        Raises `InvalidField`; `Forbidden` (VERIFICATION_FAILED) for a token that is wrong, used or
        over; `Conflict` (TOO_MANY_DEVICES, BAD_PRE_KEYS).
        """
        check_registration_id(request.registration_id)
        account_id, used = await self._use_link(request.link_token)
        async with self._directory.turn(account_id):
            account = await self._directory.get(account_id)
            if account is None:
                raise _link_failed()
            keys = await check_upload(request.pre_keys, account.identity_key, first=True)
            device_id = self._check_free_id(account)
            slot = await self._store.reserve("relay.slots", 1)
            credential, hash_ = device_credential(account.account_id, device_id, self._random)
            now_ms = self._clock.now_ms()
            device = Device(device_id, request.registration_id, now_ms, slot, slot, hash_)
            joined = account.with_devices([*account.devices.values(), device])
            await self._directory.save(joined, (), [*used, *keys.puts(slot)])
        return Registered(account.account_id, device_id, credential)

    async def own(self, caller: DeviceCaller) -> Account:
        """The caller's account, as long as the caller is a device of it."""
        account = await self._directory.get(caller.account_id)
        device = None if account is None else account.devices.get(caller.device_id)
        if account is None or device is None or device.slot != caller.slot:
            raise Unauthenticated("the device was removed")
        return account

    async def remove(self, caller: DeviceCaller, device_id: int) -> None:
        """Remove a device with its mailbox. Raises `InvalidField`, `Forbidden`, `NotFound`."""
        if not _FIRST_DEVICE < device_id <= MAX_DEVICE_ID:
            raise InvalidField("device_id", f"2 to {MAX_DEVICE_ID}")
        if device_id != caller.device_id:
            _check_first(caller, "a linked device can remove only itself")
        async with self._directory.turn(caller.account_id):
            account = await self.own(caller)
            gone = account.devices.get(device_id)
            if gone is None:
                raise NotFound("no such device")
            left = [device for id_, device in account.devices.items() if id_ != device_id]
            await self._directory.save(account.with_devices(left), [gone])

    async def delete_account(self, caller: DeviceCaller) -> None:
        """Remove the account with everything that belongs to it. Raises `Forbidden`."""
        _check_first(caller, "only device 1 can delete the account")
        async with self._directory.turn(caller.account_id):
            await self._directory.delete(await self.own(caller))

    async def _use_link(self, token: str) -> tuple[bytes, list[Change]]:
        if not 1 <= len(token) <= _MAX_TOKEN_CHARS:
            raise InvalidField("link_token", f"1 to {_MAX_TOKEN_CHARS} characters")
        key = _token_key(token)
        record = await self._store.get(LINKS, key)
        if record is None or record.expires_at_ms <= self._clock.now_ms():
            raise _link_failed()
        account_id = PendingLink.FromString(record.value).account
        return account_id, [Check(LINKS, key, record.version), Delete(LINKS, key)]

    def _check_free_id(self, account: Account) -> int:
        if len(account.devices) >= self._settings.max_devices:
            raise Conflict(
                f"an account has at most {self._settings.max_devices} devices",
                reason="TOO_MANY_DEVICES",
            )
        return next(id_ for id_ in range(1, MAX_DEVICE_ID + 1) if id_ not in account.devices)


def _check_first(caller: DeviceCaller, text: str) -> None:
    if caller.device_id != _FIRST_DEVICE:
        raise Forbidden(text)


def _token_key(token: str) -> bytes:
    return sha256(token.encode()).digest()


def _link_failed() -> Forbidden:
    return Forbidden("the link token is wrong, used or over", reason="VERIFICATION_FAILED")
