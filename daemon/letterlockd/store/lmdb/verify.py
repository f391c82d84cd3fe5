"""Walk a whole store and report what does not agree. Reads only; a daemon may be running.

Checked: every page that the tables need can be read, its keys ascend and are as many as the table
says; every record has its header and a version; records of a table expire exactly if the table says
so; the expiry index and the records name each other, one to one (I4). What values mean is not known
here: their seals are checked by `app.verify`.

A damaged page can end the process that reads it (LMDB trusts its file): whoever must survive it
walks in a child process.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from letterlockd.errors import EnvironmentFault
from letterlockd.store.lmdb.schema import (
    EXPIRY_DB,
    HEADER,
    META_DB,
    NUMBER,
    expiry_key,
    sequence_key,
    split_expiry_key,
    table_db,
    table_key,
)
from letterlockd.store.lmdb.snapshot import open_whole

__all__ = ["Difference", "Report", "verify"]

_SEQUENCE = sequence_key("")


class Difference(NamedTuple):
    """One thing that does not agree. `key` is a record key: it is not for logs."""

    table_number: int
    key: bytes
    what: str


class Report(NamedTuple):
    """What a walk found: counts, and at most `limit` differences (`more`: there are others).

    `tables`: records by table number. `sequences`: the next free number by name. `highest`: by
    table number, the largest number that the last 8 bytes of a key make.
    """

    records: int
    expiry_entries: int
    differences: list[Difference]
    more: bool
    tables: dict[int, int]
    sequences: dict[str, int]
    highest: dict[int, int]


def verify(folder: Path, *, limit: int = 100) -> Report:
    """Walk the store in `folder` in one snapshot.

    Takes seconds per million records and holds a snapshot all the time, so the file of a busy
    daemon grows meanwhile. Raises `EnvironmentFault`: DATA_FOLDER_FOREIGN when no store is there,
    STORAGE_DAMAGED when the walk cannot go on.
    """
    with open_whole(folder) as env, env.begin() as txn:
        try:
            walk = _Walk(env, txn, limit)
            walk.tables()
            walk.index()
            return walk.report()
        except lmdb.Error as error:
            raise EnvironmentFault(
                f"the store in {folder} has a page that cannot be read ({error})",
                reason="STORAGE_DAMAGED",
            ) from error


class _Walk:
    def __init__(self, env: lmdb.Environment, txn: Any, limit: int) -> None:
        self._txn = txn
        self._limit = limit
        self._meta = env.open_db(META_DB, txn=txn, create=False)
        self._expiry = env.open_db(EXPIRY_DB, txn=txn, create=False)
        names = {bytes(name) for name, _ in txn.cursor()}
        self._tables = {
            number: env.open_db(table_db(number), txn=txn, create=False)
            for number in range(1, 256)
            if table_db(number) in names
        }
        self.records = 0
        self.entries = 0
        self.differences: list[Difference] = []
        self.more = False
        self._counts: dict[int, int] = {}
        self._highest: dict[int, int] = {}

    def report(self) -> Report:
        """What was found."""
        sequences = {
            bytes(key[len(_SEQUENCE) :]).decode("utf-8", "replace"): NUMBER.unpack(value)[0]
            for key, value in self._txn.cursor(db=self._meta)
            if key.startswith(_SEQUENCE) and len(value) == NUMBER.size
        }
        return Report(
            self.records,
            self.entries,
            self.differences[: self._limit],
            self.more,
            self._counts,
            sequences,
            self._highest,
        )

    def tables(self) -> None:
        """Every record, and that its expiry entry exists."""
        for number, database in self._tables.items():
            described = self._txn.get(table_key(number), db=self._meta)
            expires = None if described is None else described[:1] == b"1"
            before, count = b"", 0
            for key, record in self._txn.cursor(db=database):
                count += 1
                if key <= before:
                    self._differs(number, key, "key out of order")
                before = key
                self._highest[number] = max(
                    self._highest.get(number, 0), int.from_bytes(key[-8:], "big")
                )
                for what in self._record_faults(number, key, record, expires):
                    self._differs(number, key, what)
            if count != self._txn.stat(database)["entries"]:
                self._differs(number, b"", "another number of records than the table says")
            self.records += count
            self._counts[number] = count

    def index(self) -> None:
        """Every expiry entry, and that its record exists with that time."""
        for entry, _ in self._txn.cursor(db=self._expiry):
            self.entries += 1
            try:
                expires_at_ms, number, key = split_expiry_key(entry)
            except EnvironmentFault:
                self._differs(entry[0] if entry else 0, b"", "expiry entry without time and key")
                continue
            database = self._tables.get(number)
            record = None if database is None else self._txn.get(key, db=database)
            if record is None:
                self._differs(number, key, "expiry entry without a record")
            elif len(record) >= HEADER.size and HEADER.unpack_from(record)[1] != expires_at_ms:
                self._differs(number, key, "expiry entry with another time than its record")

    def _record_faults(
        self, number: int, key: bytes, record: bytes, expires: bool | None
    ) -> Iterator[str]:
        if len(record) < HEADER.size:
            yield "record without a header"
            return
        version, expires_at_ms = HEADER.unpack_from(record)
        if version == 0:
            yield "record with version 0"
        if expires is not None and expires is not (expires_at_ms > 0):
            yield "record with an expiry time against its table"
        if expires_at_ms:
            entry = expiry_key(expires_at_ms, number, key)
            if self._txn.get(entry, db=self._expiry) is None:
                yield "record without an expiry entry"

    def _differs(self, number: int, key: bytes, what: str) -> None:
        if len(self.differences) < self._limit:
            self.differences.append(Difference(number, bytes(key), what))
        else:
            self.more = True
