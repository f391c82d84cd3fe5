"""The pre-key directory: publishing keys, and how many one-time keys are left.

Every signature is verified before anything is written, and all of an upload is one commit.
Handing keys out is `bundles`' part. Public keys only (I3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from letterlock.relay.v1.keys_pb2 import KyberPreKey, PreKeyUpload, SignedPreKey

from letterlockd.errors import BusyError, InvalidField
from letterlockd.relay.accounts import Account, Device
from letterlockd.relay.directory import Directory, unchanged
from letterlockd.relay.signatures import IdentityVerifier
from letterlockd.relay.tables import (
    LAST_RESORT,
    ONE_TIME,
    ONE_TIME_KYBER,
    PRE_KEYS,
    SIGNED,
    pre_key_key,
    pre_key_prefix,
)
from letterlockd.store.port import Delete, Put, Store

__all__ = ["MAX_STORED", "MAX_UPLOAD", "CheckedUpload", "KeyCount", "PreKeys", "check_upload"]

MAX_UPLOAD = 100
"""One-time keys of a kind in one upload: 100 signatures are some 10 ms of checks."""
MAX_STORED = 200
"""One-time keys of a kind and device in the directory: two uploads."""

_EC_BYTES = 33
_KYBER_BYTES = 1_569
_EC_TYPE = 5
_KYBER_TYPE = 8
_CHECKS_PER_TURN = 8
_CONFLICT_RETRY_MS = 200


@dataclass(frozen=True, slots=True)
class CheckedUpload:
    """An upload whose every key and signature is good: rows by kind and key id (0 for the two
    kinds of which a device has one). `withdraws`: one-time keys that are left go first."""

    rows: Sequence[tuple[int, int, bytes]]
    withdraws: bool = False

    def puts(self, slot: int) -> list[Put]:
        """The rows as changes of a commit."""
        return [Put(PRE_KEYS, pre_key_key(slot, *row[:2]), row[2]) for row in self.rows]

    def ids(self, kind: int) -> set[int]:
        """Key ids of one kind."""
        return {key_id for row_kind, key_id, _ in self.rows if row_kind == kind}


async def check_upload(
    upload: PreKeyUpload, identity_key: bytes, *, first: bool, identity_field: str = "identity_key"
) -> CheckedUpload:
    """Check everything about an upload that does not depend on what is stored.

    `first`: signed and last-resort key are required. Raises `InvalidField`, or `Conflict` with
    BAD_PRE_KEYS. Lets the loop run every few signatures.
    """
    verifier = IdentityVerifier(identity_key, identity_field)
    rows: list[tuple[int, int, bytes]] = []
    for number, row in enumerate(_checked(upload, verifier, first=first)):
        rows.append(row)
        if number % _CHECKS_PER_TURN == _CHECKS_PER_TURN - 1:
            await asyncio.sleep(0)
    return CheckedUpload(rows, upload.withdraw_one_time)


def _checked(
    upload: PreKeyUpload, verifier: IdentityVerifier, *, first: bool
) -> Iterator[tuple[int, int, bytes]]:
    _check_lists(upload)
    if upload.HasField("signed_pre_key"):
        yield SIGNED, 0, _signed(upload.signed_pre_key, "pre_keys.signed_pre_key", verifier)
    elif first:
        raise InvalidField("pre_keys.signed_pre_key", "is required")
    if upload.HasField("last_resort_kyber_pre_key"):
        field = "pre_keys.last_resort_kyber_pre_key"
        yield LAST_RESORT, 0, _kyber(upload.last_resort_kyber_pre_key, field, verifier)
    elif first:
        raise InvalidField("pre_keys.last_resort_kyber_pre_key", "is required")
    for place, key in enumerate(upload.one_time_pre_keys):
        field = f"pre_keys.one_time_pre_keys[{place}]"
        _check_key(key.public_key, field, _EC_TYPE, _EC_BYTES)
        yield ONE_TIME, key.key_id, key.SerializeToString()
    for place, kyber in enumerate(upload.one_time_kyber_pre_keys):
        field = f"pre_keys.one_time_kyber_pre_keys[{place}]"
        yield ONE_TIME_KYBER, kyber.key_id, _kyber(kyber, field, verifier)


def _check_lists(upload: PreKeyUpload) -> None:
    _check_list([key.key_id for key in upload.one_time_pre_keys], "one_time_pre_keys")
    _check_list([key.key_id for key in upload.one_time_kyber_pre_keys], "one_time_kyber_pre_keys")


def _check_list(ids: Sequence[int], name: str) -> None:
    if len(ids) > MAX_UPLOAD:
        raise InvalidField(f"pre_keys.{name}", f"at most {MAX_UPLOAD} in one upload")
    if len(set(ids)) != len(ids):
        raise InvalidField(f"pre_keys.{name}", "every key id once")


def _signed(key: SignedPreKey, field: str, verifier: IdentityVerifier) -> bytes:
    _check_key(key.public_key, field, _EC_TYPE, _EC_BYTES)
    verifier.verify(key.public_key, key.signature, f"{field}.signature")
    return key.SerializeToString()


def _kyber(key: KyberPreKey, field: str, verifier: IdentityVerifier) -> bytes:
    _check_key(key.public_key, field, _KYBER_TYPE, _KYBER_BYTES)
    verifier.verify(key.public_key, key.signature, f"{field}.signature")
    return key.SerializeToString()


def _check_key(public_key: bytes, field: str, key_type: int, size: int) -> None:
    if len(public_key) != size or public_key[0] != key_type:
        raise InvalidField(f"{field}.public_key", f"{size} bytes that begin with {key_type:02x}")


@dataclass(frozen=True, slots=True)
class KeyCount:
    """One-time keys that a device has in the directory."""

    one_time: int
    one_time_kyber: int


class PreKeys:
    """Published keys of devices; every device is named with the account it belongs to."""

    def __init__(self, store: Store, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def upload(self, account: Account, device: Device, upload: PreKeyUpload) -> KeyCount:
        """Replace and add keys, as the contract says; the keys that are there afterwards.

        Raises as `check_upload`; `InvalidField` when the directory would hold too many.
        """
        checked = await check_upload(upload, account.identity_key, first=False)
        async with self._directory.turn(account.account_id):
            count = await self.check_room(device, checked)
            removed = await self._withdrawn(device.slot) if checked.withdraws else []
            (conflict,) = await self._store.commit(
                [[unchanged(account), *removed, *checked.puts(device.slot)]]
            )
        if conflict is not None:
            raise BusyError("the account was just changed", retry_after_ms=_CONFLICT_RETRY_MS)
        return count

    async def check_room(self, device: Device, upload: CheckedUpload) -> KeyCount:
        """What the directory will hold with `upload`; raises `InvalidField` if that is too much."""
        one_time = await self._with(device.slot, ONE_TIME, upload, "one_time_pre_keys")
        kyber = await self._with(device.slot, ONE_TIME_KYBER, upload, "one_time_kyber_pre_keys")
        return KeyCount(one_time, kyber)

    async def count(self, device: Device) -> KeyCount:
        """One-time keys left."""
        return KeyCount(
            len(await self._ids(device.slot, ONE_TIME)),
            len(await self._ids(device.slot, ONE_TIME_KYBER)),
        )

    async def _with(self, slot: int, kind: int, upload: CheckedUpload, name: str) -> int:
        left = set() if upload.withdraws else await self._ids(slot, kind)
        count = len(left | upload.ids(kind))
        if count > MAX_STORED and upload.ids(kind):
            raise InvalidField(f"pre_keys.{name}", f"at most {MAX_STORED} in the directory")
        return count

    async def _withdrawn(self, slot: int) -> list[Delete]:
        return [
            Delete(PRE_KEYS, pre_key_key(slot, kind, key_id))
            for kind in (ONE_TIME, ONE_TIME_KYBER)
            for key_id in await self._ids(slot, kind)
        ]

    async def _ids(self, slot: int, kind: int) -> set[int]:
        rows = await self._store.scan(
            PRE_KEYS, prefix=pre_key_prefix(slot, kind), limit=MAX_STORED + MAX_UPLOAD
        )
        return {int.from_bytes(key[-4:], "big") for key, _ in rows}
