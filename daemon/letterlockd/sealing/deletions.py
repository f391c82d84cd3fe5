"""The record of deletions: what was removed because its time was over, when, how many, never whose.

    5 deletions    be64 UTC hour → DeletionRecord; expires after `KEPT_MS`

    sweepers ──note──▶ counts ──write, after each round──▶ entry of this hour ──hour over──▶ final
                                                              └ names the MAC of the entry before

Each entry authenticates itself and the one before it under a key of the store, so nobody without
the master key can change, add, reorder or take out entries unseen. What a chain cannot show by
itself is that its newest entries are gone: whoever wants to, notes the newest MAC elsewhere. A
crash loses the counts of the round that it interrupts, never a deletion. It knows tables by name,
and no keys or contents of what is removed.
"""

from __future__ import annotations

import hmac
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Self

from google.protobuf.message import DecodeError

from letterlockd.records.v1.deletions_pb2 import DeletionRecord
from letterlockd.sealing.errors import SealBroken
from letterlockd.sealing.keyring import STORE_SCOPE, Keyring
from letterlockd.sealing.seal import place, subkey
from letterlockd.store.port import Put, Store, Table

__all__ = ["DELETIONS", "HOUR_MS", "Chain", "Deletions", "deletions_key"]

DELETIONS = Table("deletions", 5, expires=True)

_log = logging.getLogger(__name__)

HOUR_MS = 3_600_000

KEPT_MS = 366 * 86_400_000
"""A year, as the audit trail: long enough for a yearly review, and an end to it."""

_STEP = 1_000


async def deletions_key(keyring: Keyring) -> bytes:
    """What the entries of a store are authenticated under."""
    return subkey(await keyring.scope_key(STORE_SCOPE), "deletions")


class Deletions:
    """The record of one store, as its sweepers write it. Open with `Deletions.open`."""

    def __init__(self, store: Store, key: bytes, hour: int, newest: DeletionRecord) -> None:
        self._store = store
        self._key = key
        self._hour = hour
        self._entry = newest
        self._noted: Counter[str] = Counter()

    @classmethod
    async def open(cls, store: Store, keyring: Keyring) -> Self:
        """Go on where the record ends. Behind an entry that is not ours a new chain begins: that
        one stays as it is, for `verify` to find."""
        key = await deletions_key(keyring)
        after, value = b"", b""
        while rows := await store.scan(DELETIONS, after=after, limit=_STEP):
            after, value = rows[-1][0], rows[-1][1].value
        hour = int.from_bytes(after, "big")
        try:
            newest = Chain(key).opened(after, value) if after else DeletionRecord()
        except SealBroken:
            _log.warning("deletion_record_damaged")
            hour, newest = hour + 1, DeletionRecord()
        return cls(store, key, hour, newest)

    @property
    def newest_ms(self) -> int:
        """When something was last removed, milliseconds since 1970; 0: never."""
        return self._entry.due_until_ms

    def note(self, removed: Iterable[tuple[str, int]]) -> None:
        """So many records of these tables (name, count) are removed, durably."""
        for table, count in removed:
            self._noted[table] += count

    async def write(self, due_until_ms: int) -> None:
        """Record what was noted, in a sweep that looked for what was due until then.

        Raises `StoreFull`; then the next call records it. A clock that goes back goes on in the
        newest entry, so that the chain stays in order.
        """
        noted, self._noted = self._noted, Counter()
        if not noted:
            return
        hour = max(self._hour, due_until_ms // HOUR_MS)
        entry, counts = self._next(hour), noted.copy()
        counts.update({one.table: one.count for one in entry.removed})
        del entry.removed[:]
        for table, count in sorted(counts.items()):
            entry.removed.add(table=table, count=count)
        entry.due_until_ms = max(entry.due_until_ms, due_until_ms)
        key = hour.to_bytes(8, "big")
        entry.mac = _mac(self._key, key, entry)
        put = Put(DELETIONS, key, entry.SerializeToString(), hour * HOUR_MS + KEPT_MS)
        try:
            await self._store.commit([[put]])
        except BaseException:
            self._noted += noted
            raise
        self._hour, self._entry = hour, entry

    def _next(self, hour: int) -> DeletionRecord:
        if hour == self._hour:
            entry = DeletionRecord()
            entry.CopyFrom(self._entry)
            return entry
        return DeletionRecord(previous=self._entry.mac)


class Chain:
    """Checks entries one after another, oldest first. What stood before the first one may have
    expired."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._previous: bytes | None = None

    def opened(self, key: bytes, value: bytes) -> DeletionRecord:
        """The entry under `key`. Raises `SealBroken` when it was altered or moved, or does not
        follow the one that was given before it."""
        try:
            entry = DeletionRecord.FromString(value)
        except DecodeError:
            raise SealBroken("the entry cannot be parsed") from None
        before, self._previous = self._previous, entry.mac
        if not hmac.compare_digest(entry.mac, _mac(self._key, key, entry)):
            raise SealBroken("the entry is altered, misplaced or under another key")
        if before is not None and before != entry.previous:
            raise SealBroken("the entry does not follow the one before it")
        return entry


def _mac(key: bytes, record_key: bytes, entry: DeletionRecord) -> bytes:
    plain = DeletionRecord()
    plain.CopyFrom(entry)
    plain.ClearField("mac")
    body = plain.SerializeToString(deterministic=True)
    return subkey(key, "entry", place(DELETIONS.number, record_key), body)
