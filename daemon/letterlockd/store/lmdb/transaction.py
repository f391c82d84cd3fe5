"""One write transaction: records, versions and the expiry index, always in step.

It knows no groups, no growth and no disk errors: whatever LMDB raises goes up, and the engine
aborts the whole transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lmdb

from letterlockd.errors import EnvironmentFault
from letterlockd.store.lmdb.schema import (
    HEADER,
    NUMBER,
    expiry_key,
    sequence_key,
    split_expiry_key,
)

__all__ = ["Conflict", "Databases", "Transaction"]

Conflict = tuple[int, bytes, int]
"""Table number, key and found version of the first failed check."""


class Databases:
    """LMDB's handles: `meta`, `expiry`, and one for each table number."""

    def __init__(self, meta: Any, expiry: Any, tables: Mapping[int, Any]) -> None:
        self.meta = meta
        self.expiry = expiry
        self.tables = tables


class Transaction:
    """Work on an open LMDB write transaction (opened with `buffers=True`).

    One cursor for each database stays open: what lies near the record before is found in its page,
    without a walk from the root. Outbox, messages and expiry entries are written in such runs.
    """

    def __init__(self, txn: lmdb.Transaction, databases: Databases) -> None:
        self._txn = txn
        self._meta = databases.meta
        self._tables = databases.tables
        self._expiry_db = databases.expiry
        self._expiry = txn.cursor(db=databases.expiry)
        self._cursors: dict[int, lmdb.Cursor] = {}

    def commit(self, checks: Sequence[Conflict], writes: Sequence[Any]) -> Conflict | None:
        """Apply one business transaction, or nothing of it and say which check failed."""
        for number, key, version in checks:
            found = self.version(number, key)
            if found != version:
                return number, key, found
        for write in writes:
            if len(write) == 4:
                self.put(*write)
            else:
                self.delete(*write)
        return None

    def version(self, number: int, key: bytes) -> int:
        """The version that `key` has, 0 when it does not exist."""
        return _found(self._cursor(number), key)[0]

    def put(self, number: int, key: bytes, value: bytes, expires_at_ms: int) -> None:
        """Write a record with the next version and move its expiry entry if the time changed."""
        cursor = self._cursor(number)
        # Most records are new: one search then tells so and writes.
        if cursor.put(key, HEADER.pack(1, expires_at_ms) + value, overwrite=False):
            expired_at_ms = 0
        else:
            version, expired_at_ms = _found(cursor, key)
            cursor.put(key, HEADER.pack(version + 1, expires_at_ms) + value)
        if expired_at_ms != expires_at_ms:
            if expired_at_ms:
                self._unlist(expired_at_ms, number, key)
            if expires_at_ms:
                self._expiry.put(expiry_key(expires_at_ms, number, key), b"")

    def delete(self, number: int, key: bytes) -> None:
        """Remove a record and its expiry entry; what is not there is no error."""
        cursor = self._cursor(number)
        version, expired_at_ms = _found(cursor, key)
        if version:
            cursor.delete()
            if expired_at_ms:
                self._unlist(expired_at_ms, number, key)

    def records(self, number: int) -> Iterator[tuple[bytes, bytes, int]]:
        """All (key, value, expiry ms) of a table, for migrations. Do not write to the same table
        while iterating."""
        with self._txn.cursor(db=self._tables[number]) as cursor:
            for key, record in cursor:
                yield bytes(key), bytes(record[HEADER.size :]), HEADER.unpack_from(record)[1]

    def sweep(self, now_ms: int, limit: int, kept: Sequence[int]) -> tuple[dict[int, int], bool]:
        """Remove at most `limit` due records, table by table, but not from those in `kept`: counts
        by table number, and whether more are due."""
        due: list[tuple[int, int, bytes]] = []
        for number in sorted(self._tables.keys() - set(kept)):
            due += self._due(number, now_ms, limit + 1 - len(due))
        removed: dict[int, int] = {}
        for expires_at_ms, number, key in due[:limit]:
            if _found(self._cursor(number), key)[1] != expires_at_ms:
                raise EnvironmentFault(
                    f"an expiry entry of table number {number} matches no record; run verify",
                    reason="STORAGE_DAMAGED",
                )
            self.delete(number, key)
            removed[number] = removed.get(number, 0) + 1
        return removed, len(due) > limit

    def reserve(self, name: str, count: int) -> int:
        """Take `count` numbers of a sequence; returns the first. Sequences begin at 1."""
        key = sequence_key(name)
        stored = self._txn.get(key, db=self._meta)
        first = 1 if stored is None else NUMBER.unpack(stored)[0]
        self._txn.put(key, NUMBER.pack(first + count), db=self._meta)
        return int(first)

    def _due(self, number: int, now_ms: int, limit: int) -> list[tuple[int, int, bytes]]:
        due: list[tuple[int, int, bytes]] = []
        with self._txn.cursor(db=self._expiry_db) as cursor:
            cursor.set_range(expiry_key(0, number, b""))
            for entry in cursor.iternext(keys=True, values=False):
                found = split_expiry_key(bytes(entry))
                if found[1] != number or found[0] > now_ms or len(due) == limit:
                    break
                due.append(found)
        return due

    def _cursor(self, number: int) -> lmdb.Cursor:
        cursor = self._cursors.get(number)
        if cursor is None:
            cursor = self._cursors[number] = self._txn.cursor(db=self._tables[number])
        return cursor

    def _unlist(self, expires_at_ms: int, number: int, key: bytes) -> None:
        if self._expiry.set_key(expiry_key(expires_at_ms, number, key)):
            self._expiry.delete()


def _found(cursor: lmdb.Cursor, key: bytes) -> tuple[int, int]:
    """Version and expiry time of the record that `cursor` then stands on; zeros: there is none."""
    if not cursor.set_key(key):
        return 0, 0
    version, expires_at_ms = HEADER.unpack_from(cursor.value())
    return version, expires_at_ms
