"""All keys of one store: long-term keys per scope, and day keys that take their messages along.

    master key (provider)
    └── scope key       one for each business, one store-wide; as long as the business exists
        └── day key     random, one for each scope and UTC day of *expiry*

    1 master-check  b"check" → sealed check value, then the master key's id as text
    2 scope-keys    b"s" scope → key wrapped by the provider
    3 day-keys      b"s" scope, be32 day → 4 random bytes of the id, then the key sealed under the
                    scope key; expires at the end of the day

A message is sealed under (a subkey of) the day key of the day it expires. When that day is over
the sweeper removes the record and the caches forget the key: every copy of the message that is
left is noise then (I4).

The master key turns while the store is used (`turn`, `renew`, `settle`, driven by `rotation`): a
scope that has day keys gets a new key of its own with it, so that the old master key opens neither
what is stored now nor the day keys that lie in free pages. Such a scope's key seals day keys and
nothing else.

It never hands out a key before the record that holds it is durable, or the message could
outlive its key by a crash. It knows nothing of messages.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self, TypeVar

from letterlockd import failpoints
from letterlockd.clock import Clock
from letterlockd.errors import BrokenInvariant
from letterlockd.sealing.errors import KeyDestroyed, MasterKeyFault, SealBroken
from letterlockd.sealing.provider import KeyProvider
from letterlockd.sealing.seal import KEY_BYTES, place, seal, unseal
from letterlockd.store.port import ABSENT, Check, Delete, Put, Record, Store, Table

__all__ = [
    "CHECK_KEY",
    "DAY_KEYS",
    "DAY_MS",
    "MASTER_CHECK",
    "SCOPE_KEYS",
    "STORE_SCOPE",
    "TABLES",
    "DayKey",
    "Keyring",
    "master_key_id",
    "open_day_key",
]

MASTER_CHECK = Table("master-check", 1, expires=False)
SCOPE_KEYS = Table("scope-keys", 2, expires=False)
DAY_KEYS = Table("day-keys", 3, expires=True)

TABLES = (MASTER_CHECK, SCOPE_KEYS, DAY_KEYS)
"""Every store with a keyring is opened with these among its tables."""

STORE_SCOPE = b""
"""The scope of what belongs to no single business."""

DAY_MS = 86_400_000

_K = TypeVar("_K")
_V = TypeVar("_V")

CHECK_KEY = b"check"
_CHECK_VALUE = b"letterlock master key check"
_CHECK_CONTEXT = place(MASTER_CHECK.number, CHECK_KEY)
_SCOPE_BYTES = (0, 16)
_DAY_BYTES = 4
_RANDOM_ID_BYTES = 4

_MAX_DAYS_OF_A_SCOPE = 1_000
"""Far more than the 31 that can live, and those that the sweeper has not reached."""

_MAX_SCOPE_KEYS = 4_096
_MAX_DAY_KEYS = 65_536
"""Some 13 MB; a business has at most 31 living day keys."""


@dataclass(frozen=True, slots=True)
class DayKey:
    """`id` (8 bytes) is stored beside what `key` (32 bytes) sealed, to find it again."""

    id: bytes
    key: bytes = field(repr=False)


class Keyring:
    """Keys of one store. Open with `Keyring.open`, which proves the master key."""

    def __init__(
        self,
        store: Store,
        provider: KeyProvider,
        clock: Clock,
        *,
        random: Callable[[int], bytes],
        former: KeyProvider | None = None,
    ) -> None:
        self._store = store
        self._provider = provider
        self._former = former
        self._clock = clock
        self._random = random
        self._scope_keys: OrderedDict[bytes, bytes] = OrderedDict()
        self._day_keys: OrderedDict[tuple[bytes, int], DayKey] = OrderedDict()
        self._changing = asyncio.Lock()
        self._making = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        store: Store,
        provider: KeyProvider,
        clock: Clock,
        *,
        random: Callable[[int], bytes] = os.urandom,
        former: KeyProvider | None = None,
    ) -> Self:
        """The keyring of `store`; its first opening binds the store to the master key.

        `former`: an older master key that some of the store may still be under. Raises
        `MasterKeyFault` (MASTER_KEY_WRONG) when the store belongs to neither.
        """
        ring = cls(store, provider, clock, random=random, former=former)
        stored = await _create_or_read(store, await ring._check())
        if stored is not None:
            await ring._prove(stored)
        return ring

    @classmethod
    async def reading(
        cls,
        store: Store,
        provider: KeyProvider,
        clock: Clock,
        *,
        former: KeyProvider | None = None,
    ) -> Self:
        """The keyring of a store that is only looked at. Raises `MasterKeyFault` for another master
        key, `SealBroken` when the store's binding to its own is lost or altered."""
        ring = cls(store, provider, clock, random=os.urandom, former=former)
        stored = await store.get(MASTER_CHECK, CHECK_KEY)
        if stored is None:
            raise SealBroken("the store's binding to its master key is gone")
        try:
            await ring._prove(stored.value)
        except MasterKeyFault as fault:
            if master_key_id(stored.value) in ring._key_ids:
                raise SealBroken("the store's binding to its master key is altered") from fault
            raise
        return ring

    async def turn(self, provider: KeyProvider) -> None:
        """From now on wrap under `provider`; what the one before has wrapped still opens."""
        async with self._making:  # or a key wrapped before could be stored behind `renew`'s back
            if provider.key_id != self._provider.key_id:
                self._former, self._provider = self._provider, provider

    async def renew(self, after: bytes, limit: int) -> bytes | None:
        """Bring the next `limit` scope keys behind `after` under the master key in force, a
        transaction each; those that are there already are left alone. Returns where to go on, or
        None at the end. Raises `SealBroken`, and what the store raises."""
        rows = await self._store.scan(SCOPE_KEYS, after=after, limit=limit)
        for record_key, _ in rows:
            async with self._changing:
                while not await self._renewed(record_key[1:]):
                    pass  # the sweeper took a day key meanwhile
            failpoints.hit("sealing.rotate.scope")
        return rows[-1][0] if len(rows) == limit else None

    async def settle(self) -> None:
        """Bind the store to the master key in force: nothing is under another one any more."""
        await self._store.commit([[await self._check()]])

    def forget_former(self) -> None:
        """The former master key is destroyed."""
        self._former = None

    async def scope_key(self, scope: bytes) -> bytes:
        """The long-term 32-byte key of a scope (16-byte business id, or `STORE_SCOPE`); made
        durable on first use."""
        cached = self._scope_keys.get(scope)
        if cached is not None:
            self._scope_keys.move_to_end(scope)
            return cached
        record_key = _scope_record(scope)
        record = await self._store.get(SCOPE_KEYS, record_key)
        if record is None:
            key = await self._new_scope_key(record_key)
        else:
            key = await self._unwrap(record.value, place(SCOPE_KEYS.number, record_key))
        _remember(self._scope_keys, scope, key, _MAX_SCOPE_KEYS)
        return key

    async def day_key(self, scope: bytes, expires_at_ms: int) -> DayKey:
        """The key for what expires at `expires_at_ms` in `scope`; made durable on first use.

        Raises `KeyDestroyed` when that day is over already.
        """
        day = expires_at_ms // DAY_MS
        self._check_alive(day)
        cached = self._day_keys.get((scope, day))
        if cached is not None:
            self._day_keys.move_to_end((scope, day))
            return cached
        async with self._changing:  # or the day key could be sealed under a scope key just renewed
            return await self._stored_day_key(scope, day) or await self._new_day_key(scope, day)

    async def day_key_by_id(self, scope: bytes, id: bytes) -> DayKey:  # noqa: A002
        """The key that sealed something under this id. Raises `KeyDestroyed` when it is gone."""
        if len(id) != _DAY_BYTES + _RANDOM_ID_BYTES:
            raise SealBroken("a day key's id has 8 bytes")
        day = int.from_bytes(id[:_DAY_BYTES], "big")
        self._check_alive(day)
        found = self._day_keys.get((scope, day))
        if found is None:
            async with self._changing:
                found = await self._stored_day_key(scope, day)
        if found is None or found.id != id:
            raise _destroyed()
        return found

    async def destroy(self, scope: bytes) -> None:
        """Destroy a scope's key and its day keys, on disk and here: what they sealed is noise."""
        async with self._changing:
            days = await self._days(scope)
            deletes = [Delete(DAY_KEYS, key) for key, _ in days]
            await self._store.commit([[Delete(SCOPE_KEYS, _scope_record(scope)), *deletes]])
            self._scope_keys.pop(scope, None)
            for place_ in [place_ for place_ in self._day_keys if place_[0] == scope]:
                del self._day_keys[place_]

    def forget_before(self, now_ms: int) -> None:
        """Drop the day keys whose day is over at `now_ms` from memory, as the sweeper does on
        disk."""
        ended = [place for place in self._day_keys if _end_of(place[1]) <= now_ms]
        for scope_and_day in ended:
            del self._day_keys[scope_and_day]

    def _check_alive(self, day: int) -> None:
        if _end_of(day) <= self._clock.now_ms():
            raise _destroyed()

    async def _new_scope_key(self, record_key: bytes) -> bytes:
        context = place(SCOPE_KEYS.number, record_key)
        async with self._making:
            key = self._random(KEY_BYTES)
            wrapped = await self._provider.wrap(key, context)
            other = await _create_or_read(self._store, Put(SCOPE_KEYS, record_key, wrapped))
        return key if other is None else await self._unwrap(other, context)

    async def _stored_day_key(self, scope: bytes, day: int) -> DayKey | None:
        record = await self._store.get(DAY_KEYS, _day_record(scope, day))
        return None if record is None else await self._opened(scope, day, record.value)

    async def _new_day_key(self, scope: bytes, day: int) -> DayKey:
        record_key = _day_record(scope, day)
        id_part, key = self._random(_RANDOM_ID_BYTES), self._random(KEY_BYTES)
        context = place(DAY_KEYS.number, record_key) + id_part
        value = id_part + seal(await self.scope_key(scope), key, context)
        put = Put(DAY_KEYS, record_key, value, _end_of(day))
        return await self._opened(scope, day, await _create_or_read(self._store, put) or value)

    async def _opened(self, scope: bytes, day: int, value: bytes) -> DayKey:
        key = open_day_key(await self.scope_key(scope), _day_record(scope, day), value)
        id_part = value[:_RANDOM_ID_BYTES]
        day_key = DayKey(day.to_bytes(_DAY_BYTES, "big") + id_part, key)
        _remember(self._day_keys, (scope, day), day_key, _MAX_DAY_KEYS)
        return day_key

    async def _unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        try:
            return await self._provider.unwrap(wrapped, context)
        except SealBroken:
            if self._former is None:
                raise
            return await self._former.unwrap(wrapped, context)

    async def _renewed(self, scope: bytes) -> bool:
        """One scope's turn. False: something changed meanwhile, nothing was done."""
        record_key = _scope_record(scope)
        context = place(SCOPE_KEYS.number, record_key)
        record = await self._store.get(SCOPE_KEYS, record_key)
        if record is None or await _opens(self._provider, record.value, context):
            return True
        before = key = await self._unwrap(record.value, context)
        days = await self._days(scope)
        if days:
            key = self._random(KEY_BYTES)
        wrapped = await self._provider.wrap(key, context)
        changes = [
            Check(SCOPE_KEYS, record_key, record.version),
            Put(SCOPE_KEYS, record_key, wrapped),
            *_resealed(days, before, key),
        ]
        (conflict,) = await self._store.commit([changes])
        if conflict is None and scope in self._scope_keys:
            self._scope_keys[scope] = key
        return conflict is None

    async def _days(self, scope: bytes) -> list[tuple[bytes, Record]]:
        """The day keys of a scope. What belongs to no business has none: its key only moves."""
        if not scope:
            return []
        return await self._store.scan(
            DAY_KEYS, prefix=_scope_record(scope), limit=_MAX_DAYS_OF_A_SCOPE
        )

    @property
    def _key_ids(self) -> set[str]:
        return {ring.key_id for ring in (self._provider, self._former) if ring is not None}

    async def _check(self) -> Put:
        sealed = await self._provider.wrap(_CHECK_VALUE, _CHECK_CONTEXT)
        value = len(sealed).to_bytes(2, "big") + sealed + self._provider.key_id.encode()
        return Put(MASTER_CHECK, CHECK_KEY, value)

    async def _prove(self, stored: bytes) -> None:
        sealed, named = _split_check(stored)
        for provider in (self._provider, self._former):
            if provider is not None and await _opens(provider, sealed, _CHECK_CONTEXT):
                return
        raise MasterKeyFault(
            f"the store was sealed with master key {named}, this one is {self._provider.key_id}",
            reason="MASTER_KEY_WRONG",
        )


def master_key_id(check: bytes) -> str:
    """Which master key a store is bound to, by the value of its `master-check` record."""
    return _split_check(check)[1]


def open_day_key(scope_key: bytes, record_key: bytes, value: bytes) -> bytes:
    """The key in a `day-keys` record. Raises `SealBroken`."""
    id_part, sealed = value[:_RANDOM_ID_BYTES], value[_RANDOM_ID_BYTES:]
    return unseal(scope_key, sealed, place(DAY_KEYS.number, record_key) + id_part)


def _resealed(
    days: Sequence[tuple[bytes, Record]], before: bytes, after: bytes
) -> list[Check | Put]:
    changes: list[Check | Put] = []
    for key, record in days:
        id_part = record.value[:_RANDOM_ID_BYTES]
        opened = open_day_key(before, key, record.value)
        value = id_part + seal(after, opened, place(DAY_KEYS.number, key) + id_part)
        changes.append(Check(DAY_KEYS, key, record.version))
        changes.append(Put(DAY_KEYS, key, value, record.expires_at_ms))
    return changes


async def _opens(provider: KeyProvider, wrapped: bytes, context: bytes) -> bool:
    try:
        await provider.unwrap(wrapped, context)
    except SealBroken:
        return False
    return True


def _split_check(stored: bytes) -> tuple[bytes, str]:
    sealed_end = 2 + int.from_bytes(stored[:2], "big")
    return stored[2:sealed_end], stored[sealed_end:].decode("ascii", "replace")


async def _create_or_read(store: Store, put: Put) -> bytes | None:
    """Create a record durably; None if that was done, or the value that was there before."""
    (conflict,) = await store.commit([[Check(put.table, put.key, ABSENT), put]])
    if conflict is None:
        return None
    record = await store.get(put.table, put.key)
    if record is None:
        raise _destroyed()  # swept between the two: its day ended just now
    return record.value


def _remember(cache: OrderedDict[_K, _V], at: _K, value: _V, bound: int) -> None:
    cache[at] = value
    cache.move_to_end(at)
    while len(cache) > bound:
        cache.popitem(last=False)


def _scope_record(scope: bytes) -> bytes:
    if len(scope) not in _SCOPE_BYTES:
        raise BrokenInvariant("key scope: 16 bytes, or none for the whole store")
    return b"s" + scope


def _day_record(scope: bytes, day: int) -> bytes:
    return _scope_record(scope) + day.to_bytes(_DAY_BYTES, "big")


def _end_of(day: int) -> int:
    return (day + 1) * DAY_MS


def _destroyed() -> KeyDestroyed:
    return KeyDestroyed("the key is destroyed: its retention day is over")
