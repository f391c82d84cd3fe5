"""An account with its devices, as the relay works with it and as its row keeps it.

Frozen: a change makes a new account, and only the `directory` writes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from letterlockd.model.ids import AccountId
from letterlockd.records.v1.relay_pb2 import RelayAccount, RelayDevice
from letterlockd.relay.numbers import NumberVault

__all__ = ["MAX_DEVICE_ID", "MAX_REGISTRATION_ID", "Account", "Device", "decode", "encode"]

MAX_DEVICE_ID = 127
MAX_REGISTRATION_ID = 16_383


@dataclass(frozen=True, slots=True)
class Device:
    """`slot` names its pre-keys for good, `mailbox` where its envelopes go. `credential_hash` is
    empty for a business number, which its gateway answers for."""

    device_id: int
    registration_id: int
    created_ms: int
    slot: int
    mailbox: int
    credential_hash: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """`devices` ascend by device id. `version` is the row's; 0 for one that is not stored yet.
    `gateway_id` and `retention_ms` are set for business numbers only."""

    account_id: AccountId
    identity_key: bytes
    number: str = field(repr=False)
    number_index: bytes = field(repr=False)
    devices: Mapping[int, Device]
    version: int = 0
    gateway_id: str = ""
    retention_ms: int = 0

    @property
    def is_business(self) -> bool:
        """Whether a gateway answers for it."""
        return bool(self.gateway_id)

    def with_devices(self, devices: Iterable[Device]) -> Account:
        """The same account with exactly these devices."""
        ordered = sorted(devices, key=lambda device: device.device_id)
        return replace(self, devices={device.device_id: device for device in ordered})


def encode(account: Account, vault: NumberVault) -> bytes:
    """The row of an account."""
    return RelayAccount(
        kind=RelayAccount.KIND_BUSINESS if account.is_business else RelayAccount.KIND_USER,
        identity_key=account.identity_key,
        sealed_number=vault.seal(account.number, account.account_id),
        number_index=account.number_index,
        gateway_id=account.gateway_id,
        retention_ms=account.retention_ms,
        devices=[
            RelayDevice(
                device_id=device.device_id,
                registration_id=device.registration_id,
                created_ms=device.created_ms,
                credential_hash=device.credential_hash,
                slot=device.slot,
                mailbox=device.mailbox,
            )
            for device in account.devices.values()
        ],
    ).SerializeToString()


def decode(account_id: AccountId, row: bytes, version: int, vault: NumberVault) -> Account:
    """The account of a row."""
    record = RelayAccount.FromString(row)
    devices = {
        device.device_id: Device(
            device_id=device.device_id,
            registration_id=device.registration_id,
            created_ms=device.created_ms,
            slot=device.slot,
            mailbox=device.mailbox,
            credential_hash=device.credential_hash,
        )
        for device in record.devices
    }
    return Account(
        account_id=account_id,
        identity_key=record.identity_key,
        number=vault.unseal(record.sealed_number, account_id),
        number_index=record.number_index,
        devices=devices,
        version=version,
        gateway_id=record.gateway_id,
        retention_ms=record.retention_ms,
    )
