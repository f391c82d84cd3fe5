"""The stores of a device: one suite over all of them, and what only the file has."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
from letterlock.device.store import DeviceStore, FileStore, MemoryStore
from letterlock.errors import DeviceError

KEY = bytes(range(32))


@pytest.fixture(params=["memory", "file", "sealed file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> DeviceStore:
    if request.param == "memory":
        return MemoryStore()
    key = KEY if request.param == "sealed file" else None
    return FileStore(tmp_path / "device.db", key=key)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_rows_come_and_go(store: DeviceStore) -> None:
    assert await store.load() == {}
    await store.commit({b"a": b"1", b"b": b"", b"c": b"3"})
    await store.commit({b"a": b"2", b"c": None, b"missing": None})
    await store.close()


async def test_what_was_committed_is_loaded_again(tmp_path: Path) -> None:
    for key in (None, KEY):
        path = tmp_path / f"{key is None}.db"
        first = FileStore(path, key=key)
        await first.load()
        await first.commit({b"a": b"1", b"b": b""})
        await first.commit({b"a": b"2", b"z": None})
        await first.close()
        second = FileStore(path, key=key)
        assert await second.load() == {b"a": b"2", b"b": b""}
        await second.clear()
        await second.close()
        third = FileStore(path, key=key)
        assert await third.load() == {}
        await third.close()


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "device.db")
    await store.load()
    await store.commit({b"a": b"1"})
    assert modes(tmp_path) == {0o600}
    await store.close()


async def test_a_second_user_of_the_file_is_turned_away(tmp_path: Path) -> None:
    first, second = FileStore(tmp_path / "d.db"), FileStore(tmp_path / "d.db")
    await first.load()
    with pytest.raises(DeviceError, match="no other process"):
        await second.load()
    await first.close()
    assert await second.load() == {}
    await second.close()


async def test_a_sealed_file_shows_neither_names_nor_values(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "d.db", key=KEY)
    await store.load()
    await store.commit({b"number/+4915112345678": b"secret content"})
    await store.close()
    raw = contents(tmp_path)
    assert raw
    assert b"secret" not in raw
    assert b"+49" not in raw


async def test_wrong_keys_are_told_apart_from_empty_files(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "d.db", key=KEY)
    await store.load()
    await store.commit({b"a": b"1"})
    await store.close()
    wrong = FileStore(tmp_path / "d.db", key=bytes(32))
    with pytest.raises(DeviceError, match="key"):
        await wrong.load()
    await wrong.close()
    with pytest.raises(DeviceError, match="32 bytes"):
        FileStore(tmp_path / "d.db", key=b"short")


async def test_a_row_moved_under_another_name_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    store = FileStore(path, key=KEY)
    await store.load()
    await store.commit({b"a": b"1", b"b": b"2"})
    await store.close()
    database = sqlite3.connect(path)
    (one, _), (_, other) = database.execute("SELECT name, value FROM rows").fetchall()
    database.execute("UPDATE rows SET value = ? WHERE name = ?", (other, one))
    database.commit()
    database.close()
    damaged = FileStore(path, key=KEY)
    with pytest.raises(DeviceError):
        await damaged.load()
    await damaged.close()


async def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    path.write_text("this is a diary, not a database" * 100)
    store = FileStore(path)
    with pytest.raises(DeviceError):
        await store.load()
    await store.close()
    nowhere = FileStore(tmp_path / "missing" / "d.db")
    with pytest.raises(DeviceError):
        await nowhere.load()
    await nowhere.close()


async def test_a_store_that_is_not_open_says_so(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "d.db")
    with pytest.raises(DeviceError, match="not open"):
        await store.commit({b"a": b"1"})
    await store.close()
