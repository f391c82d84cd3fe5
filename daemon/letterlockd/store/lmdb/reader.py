"""Reads from the memory map, in the front's own process, inline.

A look-up costs microseconds when its pages are in memory; a cold page costs one disk read on the
event loop, which is accepted. Every call opens its own snapshot and drops it before it returns:
a snapshot that is kept would stop LMDB from reusing pages, and the file would grow without end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lmdb

from letterlockd.errors import EnvironmentFault
from letterlockd.store.lmdb.schema import EXPIRY_DB, HEADER, expiry_key, split_expiry_key, table_db
from letterlockd.store.port import Record, StoreUnavailable, Table

__all__ = ["Reader"]

_STEP = 1_000

_SCAN_BYTES = 1024 * 1024
"""A scan step ends after this much, so that large values do not hold up the event loop."""


class Reader:
    """Read-only view of a store that a committer has prepared."""

    def __init__(self, folder: Path, tables: Sequence[Table]) -> None:
        self._env = lmdb.open(
            str(folder), readonly=True, max_dbs=len(tables) + 1, readahead=False, create=False
        )
        _keep_from_children(folder / "data.mdb")
        self._expiry = self._env.open_db(EXPIRY_DB, create=False)
        self._tables = {
            table.number: self._env.open_db(table_db(table.number), create=False)
            for table in tables
        }

    def get_many(self, number: int, keys: Sequence[bytes]) -> list[Record | None]:
        """One answer for each key, from one snapshot."""
        database = self._tables[number]
        with self._snapshot() as txn:
            get = txn.get
            return [_record(get(key, None, database)) for key in keys]

    def scan(
        self, number: int, prefix: bytes, after: bytes, limit: int
    ) -> tuple[list[tuple[bytes, Record]], bool]:
        """Up to `limit` records after `after`, and whether the end was reached; may stop early."""
        found: list[tuple[bytes, Record]] = []
        taken = 0
        with self._snapshot() as txn, txn.cursor(db=self._tables[number]) as cursor:
            if not cursor.set_range(max(prefix, after + b"\0") if after else prefix):
                return found, True
            for key, stored in cursor:
                if not key.startswith(prefix):
                    return found, True
                if len(found) == limit or taken > _SCAN_BYTES:
                    return found, False
                found.append((key, _present(stored)))
                taken += len(stored)
        return found, True

    def records(self, number: int) -> Iterator[tuple[bytes, Record]]:
        """Every record of the table, in the order of its keys; a snapshot for each step of it."""
        after, at_end = b"", False
        while not at_end:
            found, at_end = self.scan(number, b"", after, _STEP)
            yield from found
            after = found[-1][0] if found else after

    def due(
        self, number: int, now_ms: int, after: bytes, limit: int
    ) -> tuple[list[tuple[bytes, Record]], bytes]:
        """Up to `limit` due records, earliest first, and where to go on (empty: no more are due).

        `after` is where an earlier answer ended, or empty.
        """
        found: list[tuple[bytes, Record]] = []
        taken = 0
        with self._snapshot() as txn, txn.cursor(db=self._expiry) as cursor:
            cursor.set_range(after + b"\0" if after else expiry_key(0, number, b""))
            for entry in cursor.iternext(keys=True, values=False):
                expires_at_ms, entry_number, key = _split(entry)
                if entry_number != number or expires_at_ms > now_ms:
                    return found, b""
                if len(found) == limit or taken > _SCAN_BYTES:
                    return found, after
                stored = txn.get(key, None, self._tables[number])
                if stored is None:
                    raise StoreUnavailable("an expiry entry matches no record; run verify")
                found.append((key, _present(stored)))
                taken += len(stored)
                after = entry
        return found, b""

    def count(self, number: int) -> int:
        """Records in the table."""
        with self._snapshot() as txn:
            return int(txn.stat(self._tables[number])["entries"])

    def position(self) -> int:
        """LMDB's number of the last commit."""
        with self._snapshot() as txn:
            return int(txn.id())

    def close(self) -> None:
        """Unmap the file."""
        self._env.close()

    @contextmanager
    def _snapshot(self) -> Iterator[Any]:
        try:
            with self._begin() as txn:
                yield txn
        except lmdb.Error as error:
            raise StoreUnavailable(f"the store cannot be read: {error}") from error

    def _begin(self) -> Any:
        while True:
            try:
                return self._env.begin()
            except lmdb.MapResizedError:
                self._env.set_mapsize(0)  # the committer let it grow: take over its size


def _record(stored: bytes | None) -> Record | None:
    return None if stored is None else _present(stored)


def _split(entry: bytes) -> tuple[int, int, bytes]:
    try:
        return split_expiry_key(entry)
    except EnvironmentFault as fault:
        raise StoreUnavailable(fault.message) from None


def _present(stored: bytes) -> Record:
    if len(stored) < HEADER.size:
        raise StoreUnavailable("a record without a header; run verify")
    version, expires_at_ms = HEADER.unpack_from(stored)
    return Record(stored[HEADER.size :], version, expires_at_ms)


def _keep_from_children(file: Path) -> None:
    """LMDB opens its file without close-on-exec, and uvloop hands on whatever is open so: a ratchet
    worker, or the program that sends verification codes, would hold the store."""
    store = file.stat()
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # the listing's own descriptor is closed again
            if os.path.samestat(os.fstat(int(name)), store):
                os.set_inheritable(int(name), False)
