"""Damage that no commit can make is done to the file by hand; verify must name each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest
from letterlockd.errors import EnvironmentFault
from letterlockd.store.lmdb.schema import EXPIRY_DB, HEADER, expiry_key, table_db
from letterlockd.store.lmdb.verify import Difference, verify
from letterlockd.store.port import Put, StoreUnavailable

from tests.unit.store.contract import LETTERS, PEOPLE
from tests.unit.store.test_lmdb_open import opened

Databases = dict[str, Any]


def drop_entry(txn: Any, dbs: Databases) -> None:
    txn.delete(expiry_key(10, LETTERS.number, b"k"), db=dbs["expiry"])


def drop_record(txn: Any, dbs: Databases) -> None:
    txn.delete(b"k", db=dbs["letters"])


def change_time(txn: Any, dbs: Databases) -> None:
    txn.put(b"k", HEADER.pack(1, 11) + b"v", db=dbs["letters"])


def cut_header(txn: Any, dbs: Databases) -> None:
    txn.put(b"k", b"short", db=dbs["people"])


def zero_version(txn: Any, dbs: Databases) -> None:
    txn.put(b"k", HEADER.pack(0, 0), db=dbs["people"])


def never_expires(txn: Any, dbs: Databases) -> None:
    drop_entry(txn, dbs)
    txn.put(b"k", HEADER.pack(1, 0) + b"v", db=dbs["letters"])


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (drop_entry, [(LETTERS, "record without an expiry entry")]),
        (drop_record, [(LETTERS, "expiry entry without a record")]),
        (
            change_time,
            [
                (LETTERS, "record without an expiry entry"),
                (LETTERS, "expiry entry with another time than its record"),
            ],
        ),
        (cut_header, [(PEOPLE, "record without a header")]),
        (zero_version, [(PEOPLE, "record with version 0")]),
        (never_expires, [(LETTERS, "record with an expiry time against its table")]),
    ],
)
async def test_damage_is_named(
    tmp_path: Path, damage: Callable[[Any, Databases], None], found: list[tuple[Any, str]]
) -> None:
    await _store_with_two_records(tmp_path)
    report = verify(tmp_path)
    assert (report.records, report.expiry_entries, report.differences) == (2, 1, [])
    _change(tmp_path, damage)
    expected = [Difference(table.number, b"k", what) for table, what in found]
    assert verify(tmp_path).differences == expected


def cut_entries(txn: Any, dbs: Databases) -> None:
    for entry in (bytes((LETTERS.number,)), expiry_key(10, LETTERS.number, b"")):
        txn.put(entry, b"", db=dbs["expiry"])


async def test_entries_that_a_torn_page_has_cut_are_named(tmp_path: Path) -> None:
    await _store_with_two_records(tmp_path)
    _change(tmp_path, cut_entries)
    found = Difference(LETTERS.number, b"", "expiry entry without time and key")
    assert verify(tmp_path).differences == [found, found]


async def test_what_is_due_is_not_told_from_a_cut_entry(tmp_path: Path) -> None:
    await _store_with_two_records(tmp_path)
    _change(tmp_path, cut_entries)
    async with opened(tmp_path) as store:
        with pytest.raises(EnvironmentFault, match="run verify"):
            await store.due(LETTERS, 10, limit=5)


async def test_at_most_the_asked_number_of_differences(tmp_path: Path) -> None:
    await _store_with_two_records(tmp_path)
    _change(tmp_path, change_time)
    assert (len(verify(tmp_path, limit=1).differences), verify(tmp_path, limit=1).more) == (1, True)
    assert (len(verify(tmp_path, limit=2).differences), verify(tmp_path, limit=2).more) == (
        2,
        False,
    )


@pytest.mark.parametrize("damage", [drop_record, change_time, cut_entries])
async def test_sweeping_does_not_remove_on_the_word_of_a_wrong_entry(
    tmp_path: Path, damage: Callable[[Any, Databases], None]
) -> None:
    await _store_with_two_records(tmp_path)
    _change(tmp_path, damage)
    async with opened(tmp_path) as store:
        with pytest.raises(StoreUnavailable, match="run verify"):
            await store.sweep(10, limit=5)
        assert await store.failed() is not None


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        verify(tmp_path)
    assert caught.value.reason == "DATA_FOLDER_FOREIGN"


async def _store_with_two_records(folder: Path) -> None:
    async with opened(folder) as store:
        await store.commit([[Put(LETTERS, b"k", b"v", 10), Put(PEOPLE, b"k", b"v")]])


def _change(folder: Path, damage: Callable[[Any, Databases], None]) -> None:
    with lmdb.open(str(folder), max_dbs=4) as env:
        dbs = {
            "expiry": env.open_db(EXPIRY_DB, create=False),
            "letters": env.open_db(table_db(LETTERS.number), create=False),
            "people": env.open_db(table_db(PEOPLE.number), create=False),
        }
        with env.begin(write=True) as txn:
            damage(txn, dbs)
