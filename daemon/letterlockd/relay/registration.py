"""Registering: a user's number with its first device, and a business number of a gateway.

number unknown         → a new account
user's number again    → the same account id, taken over: devices, credentials, pre-keys and
                         envelopes from before go, also when the identity key is the same
business number again  → same gateway and identity key: renewed in place; another identity
                         key: everything old goes; another gateway: refused
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from google.protobuf.duration_pb2 import Duration
from letterlock.relay.v1.accounts_pb2 import RegisterBusinessNumberRequest, RegisterRequest

from letterlockd.clock import Clock
from letterlockd.errors import AlreadyExists, Forbidden, InvalidField
from letterlockd.model.ids import ID_BYTES, AccountId, new_account_id
from letterlockd.model.phone import check_e164
from letterlockd.relay.accounts import MAX_REGISTRATION_ID, Account, Device
from letterlockd.relay.credentials import GatewayCaller, device_credential
from letterlockd.relay.directory import Change, Directory
from letterlockd.relay.numbers import NumberVault
from letterlockd.relay.prekeys import CheckedUpload, PreKeys, check_upload
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.verification import Verifications
from letterlockd.store.port import Store

__all__ = ["Registered", "Registration", "check_registration_id"]

_FIRST_DEVICE = 1


@dataclass(frozen=True, slots=True)
class Registered:
    """A device that joined. The credential is told once and kept nowhere."""

    account_id: AccountId
    device_id: int
    credential: str

    def __repr__(self) -> str:
        return f"Registered(account_id={self.account_id.hex()}, device_id={self.device_id})"


class Registration:
    """Makes and takes over accounts."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        pre_keys: PreKeys,
        verifications: Verifications,
        vault: NumberVault,
        clock: Clock,
        random: Callable[[int], bytes],
        settings: RelaySettings,
    ) -> None:
        self._store = store
        self._directory = directory
        self._pre_keys = pre_keys
        self._verifications = verifications
        self._vault = vault
        self._clock = clock
        self._random = random
        self._settings = settings

    async def register(self, request: RegisterRequest) -> Registered:
        """As the contract says of Register."""
        check_registration_id(request.registration_id)
        number = check_e164(request.phone_number, "phone_number")
        used = await self._verifications.confirm(request.verification_id, number, request.code)
        keys = await check_upload(request.pre_keys, request.identity_key, first=True)
        async with self._directory.turn(self._vault.index(number)):
            old = await self._directory.by_number(number)
            if old is not None and old.is_business:
                raise AlreadyExists("the number belongs to a business")
            account = self._account(number, request.identity_key, old)
            return await self._first_device(account, old, request.registration_id, keys, used)

    async def register_business(
        self, caller: GatewayCaller, mailbox: int, request: RegisterBusinessNumberRequest
    ) -> AccountId:
        """As the contract says of RegisterBusinessNumber; `mailbox` is the gateway's."""
        check_registration_id(request.registration_id)
        number = check_e164(request.phone_number, "phone_number")
        retention_ms = self._check_retention(request.retention)
        keys = await check_upload(request.pre_keys, request.identity_key, first=True)
        async with self._directory.turn(self._vault.index(number)):
            old = await self._directory.by_number(number)
            if old is not None and not old.is_business:
                raise AlreadyExists("the number belongs to a user")
            if old is not None and old.gateway_id != caller.gateway_id:
                raise Forbidden("the number belongs to another gateway")
            account = replace(
                self._account(number, request.identity_key, old),
                gateway_id=caller.gateway_id,
                retention_ms=retention_ms,
            )
            await self._business_device(account, old, mailbox, request.registration_id, keys)
            return account.account_id

    async def set_retention(
        self, caller: GatewayCaller, account_id: bytes, retention: Duration
    ) -> None:
        """As the contract says of SetBusinessRetention. Raises `Forbidden`."""
        retention_ms = self._check_retention(retention)
        if len(account_id) != ID_BYTES:
            raise InvalidField("account_id", "must be 16 bytes")
        async with self._directory.turn(account_id):
            account = await self._directory.get(account_id)
            if account is None or account.gateway_id != caller.gateway_id:
                raise Forbidden("not an account of this gateway")
            await self._directory.save(replace(account, retention_ms=retention_ms), (), ())

    async def remove_business(self, caller: GatewayCaller, account_id: bytes) -> None:
        """As the contract says of RemoveBusinessNumber. Raises `Forbidden`."""
        if len(account_id) != ID_BYTES:
            raise InvalidField("account_id", "must be 16 bytes")
        async with self._directory.turn(account_id):
            account = await self._directory.get(account_id)
            if account is None:
                return
            if account.gateway_id != caller.gateway_id:
                raise Forbidden("not an account of this gateway")
            await self._directory.delete(account)

    async def _first_device(
        self,
        account: Account,
        old: Account | None,
        registration_id: int,
        keys: CheckedUpload,
        used: Sequence[Change],
    ) -> Registered:
        slot = await self._store.reserve("relay.slots", 1)
        credential, hash_ = device_credential(account.account_id, _FIRST_DEVICE, self._random)
        now_ms = self._clock.now_ms()
        device = Device(_FIRST_DEVICE, registration_id, now_ms, slot, slot, hash_)
        gone = () if old is None else tuple(old.devices.values())
        async with self._directory.turn(account.account_id):
            await self._directory.save(
                account.with_devices([device]), gone, [*used, *keys.puts(slot)]
            )
        return Registered(account.account_id, _FIRST_DEVICE, credential)

    async def _business_device(
        self,
        account: Account,
        old: Account | None,
        mailbox: int,
        registration_id: int,
        keys: CheckedUpload,
    ) -> None:
        async with self._directory.turn(account.account_id):
            gone: Sequence[Device] = ()
            if old is not None and old.identity_key == account.identity_key:
                device = replace(
                    old.devices[_FIRST_DEVICE], registration_id=registration_id, mailbox=mailbox
                )
                await self._pre_keys.check_room(device, keys)
            else:
                gone = () if old is None else tuple(old.devices.values())
                slot = await self._store.reserve("relay.slots", 1)
                now_ms = self._clock.now_ms()
                device = Device(_FIRST_DEVICE, registration_id, now_ms, slot, mailbox)
            await self._directory.save(account.with_devices([device]), gone, keys.puts(device.slot))

    def _account(self, number: str, identity_key: bytes, old: Account | None) -> Account:
        if old is not None:
            return replace(old, identity_key=identity_key)
        return Account(
            account_id=new_account_id(self._random),
            identity_key=identity_key,
            number=number,
            number_index=self._vault.index(number),
            devices={},
        )

    def _check_retention(self, retention: Duration) -> int:
        retention_ms = retention.ToMilliseconds()
        if not 0 < retention_ms <= self._settings.max_ttl_ms:
            raise InvalidField("retention", f"1 to {self._settings.max_ttl_ms} ms")
        return retention_ms


def check_registration_id(registration_id: int) -> None:
    """Raises `InvalidField` unless it is 1 to 16,383."""
    if not 1 <= registration_id <= MAX_REGISTRATION_ID:
        raise InvalidField("registration_id", f"1 to {MAX_REGISTRATION_ID}")
