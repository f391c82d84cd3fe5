"""Opening: lock, foreign folders, schema versions, migrations, tables that are gone."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest
import uvloop
from letterlockd.errors import BrokenInvariant, EnvironmentFault
from letterlockd.store.lmdb.front import LmdbStore, Migration
from letterlockd.store.lmdb.link import CommitterLink
from letterlockd.store.lmdb.transaction import Transaction
from letterlockd.store.lmdb.verify import verify
from letterlockd.store.lmdb.wire import pack
from letterlockd.store.port import Put, Record, Table

from tests.unit.store.contract import LETTERS, PEOPLE, TABLES


@asynccontextmanager
async def opened(
    folder: Path, tables: Sequence[Table] = TABLES, *, schema_version: int = 1, **options: Any
) -> AsyncIterator[LmdbStore]:
    options = {"kind": "test", "lock_wait_seconds": 0.1} | options
    store = await LmdbStore.open(folder, tables, schema_version=schema_version, **options)
    try:
        yield store
    finally:
        await store.aclose()


async def refusal(folder: Path, *arguments: Any, **options: Any) -> EnvironmentFault:
    with pytest.raises(EnvironmentFault) as caught:
        async with opened(folder, *arguments, **options):
            pass
    return caught.value


async def test_records_sequences_and_versions_survive_closing(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.commit([[Put(LETTERS, b"k", b"v", 7)], [Put(LETTERS, b"k", b"w", 8)]])
        assert await store.reserve("inbox", 5) == 1
    async with opened(tmp_path) as store:
        assert await store.get(LETTERS, b"k") == Record(b"w", 2, 8)
        assert await store.reserve("inbox", 1) == 6


async def test_folder_and_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    async with opened(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys(("store.lock", "lock.mdb", "data.mdb"), 0o600)


async def test_a_second_daemon_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    async with opened(tmp_path):
        assert (await refusal(tmp_path)).reason == "DATA_FOLDER_LOCKED"
    async with opened(tmp_path):
        pass


async def test_another_programs_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    assert (await refusal(tmp_path)).reason == "DATA_FOLDER_FOREIGN"
    assert os.listdir(tmp_path) == ["thesis.txt"]


@pytest.mark.parametrize("content", [b"not a database", bytes(100_000), os.urandom(100_000)])
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    assert (await refusal(tmp_path)).reason == "DATA_FOLDER_FOREIGN"
    assert (tmp_path / "data.mdb").read_bytes() == content


@pytest.mark.parametrize("name", [b"key", b"meta"])
async def test_another_programs_database_is_refused(tmp_path: Path, name: bytes) -> None:
    with lmdb.open(str(tmp_path), max_dbs=2) as env:
        with env.begin(write=True) as txn:
            txn.put(b"key", b"value", db=env.open_db(name, txn=txn) if name == b"meta" else None)
        if name == b"meta":
            env.open_db(b"theirs")
    assert (await refusal(tmp_path)).reason == "DATA_FOLDER_FOREIGN"


async def test_a_store_of_another_kind_is_refused_and_both_are_named(tmp_path: Path) -> None:
    async with opened(tmp_path, kind="relay"):
        pass
    fault = await refusal(tmp_path, kind="gateway")
    assert fault.reason == "DATA_FOLDER_FOREIGN"
    assert "relay" in fault.message
    assert "gateway" in fault.message


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (await refusal(tmp_path / "file" / "store")).reason == "DATA_FOLDER_UNUSABLE"


async def test_a_start_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=2) as env:
        env.open_db(b"meta")
    async with opened(tmp_path) as store:
        await store.commit([[Put(PEOPLE, b"k", b"v")]])


async def test_a_newer_schema_is_refused_and_both_versions_are_named(tmp_path: Path) -> None:
    async with opened(tmp_path, schema_version=9):
        pass
    fault = await refusal(tmp_path, schema_version=8)
    assert fault.reason == "SCHEMA_TOO_NEW"
    assert "version 9" in fault.message
    assert "knows 8" in fault.message


def upper_names(transaction: Transaction) -> None:
    for key, value, expires_at_ms in list(transaction.records(PEOPLE.number)):
        transaction.put(PEOPLE.number, key, value.upper(), expires_at_ms)


def add_mark(transaction: Transaction) -> None:
    for key, value, expires_at_ms in list(transaction.records(PEOPLE.number)):
        transaction.put(PEOPLE.number, key, value + b"!", expires_at_ms)


def fill_up(transaction: Transaction) -> None:
    for number in range(3_000):
        transaction.put(PEOPLE.number, b"%d" % number, bytes(1_000), 0)


def fail(transaction: Transaction) -> None:
    transaction.put(PEOPLE.number, b"half", b"done", 0)
    raise EnvironmentFault("cannot be migrated", reason="MIGRATION_FAILED")


def step(version: int, function: Any) -> Migration:
    return Migration(version, f"{__name__}:{function.__name__}")


async def test_migrations_run_once_in_order_from_the_stored_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_tests_importable(monkeypatch)
    async with opened(tmp_path, schema_version=2) as store:
        await store.commit([[Put(PEOPLE, b"k", b"ann")]])
    steps = [step(1, fail), step(3, add_mark), step(2, upper_names)]
    for _ in range(2):
        async with opened(tmp_path, schema_version=4, migrations=steps) as store:
            assert await store.get(PEOPLE, b"k") == Record(b"ANN!", 3, 0)


async def test_a_failed_migration_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_tests_importable(monkeypatch)
    async with opened(tmp_path) as store:
        await store.commit([[Put(PEOPLE, b"k", b"ann")]])
    steps = [step(1, upper_names), step(2, fail)]
    fault = await refusal(tmp_path, schema_version=3, migrations=steps)
    assert fault.reason == "MIGRATION_FAILED"
    async with opened(tmp_path) as store:
        assert await store.count(PEOPLE) == 1
        assert await store.get(PEOPLE, b"k") == Record(b"ann", 1, 0)


async def test_a_migration_that_needs_more_room_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_tests_importable(monkeypatch)
    async with opened(tmp_path, map_size=1 << 20):
        pass
    steps = [step(1, fill_up)]
    async with opened(tmp_path, schema_version=2, migrations=steps, map_size=1 << 20) as store:
        assert await store.count(PEOPLE) == 3_000


async def test_a_missing_migration(tmp_path: Path) -> None:
    async with opened(tmp_path, schema_version=1):
        pass
    assert (await refusal(tmp_path, schema_version=2)).reason == "SCHEMA_TOO_OLD"


async def test_a_table_number_is_never_reused(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    fault = await refusal(tmp_path, [LETTERS, Table("animals", PEOPLE.number, expires=False)])
    assert fault.reason == "DATA_FOLDER_FOREIGN"
    assert "people" in fault.message
    assert "animals" in fault.message


async def test_records_of_a_table_that_is_gone_still_die(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.commit([[Put(LETTERS, b"k", b"v", 10)]])
    async with opened(tmp_path, [PEOPLE]) as store:
        assert (await store.sweep(10, limit=5)).removed == ((f"table-{LETTERS.number}", 1),)
    assert verify(tmp_path).records == 0


@pytest.mark.parametrize(
    "options",
    [{"kind": ""}, {"kind": "Gate way"}, {"map_size": 4096}, {"max_size_bytes": 4096}],
)
async def test_options_out_of_range(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(BrokenInvariant):
        async with opened(tmp_path, **options):
            pass


@pytest.mark.parametrize("numbers", [(1, 1), (0, 1), (1, 256)])
async def test_table_numbers_out_of_range(tmp_path: Path, numbers: tuple[int, int]) -> None:
    tables = [Table(f"t{place}", number, expires=True) for place, number in enumerate(numbers)]
    with pytest.raises(BrokenInvariant):
        async with opened(tmp_path, tables):
            pass


async def test_the_committer_leaves_signals_to_the_front(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for sent in (signal.SIGINT, signal.SIGTERM):
            os.kill(store.committer_pid, sent)
        assert await store.commit([[Put(PEOPLE, b"k", b"v")]]) == [None]
        failed = store.failed()
    assert await failed is None


async def test_a_committer_whose_pipes_outlive_it_is_closed_in_order() -> None:
    link = CommitterLink()

    class Ended(asyncio.SubprocessTransport):
        """As uvloop's between the end of a process and the end of its pipes."""

        def get_pipe_transport(self, fd: int) -> asyncio.WriteTransport:
            return asyncio.WriteTransport()

        def kill(self) -> None:
            asyncio.get_running_loop().call_soon(link.connection_lost, None)
            raise ProcessLookupError

        def close(self) -> None:
            pass

    link.connection_made(Ended())
    link.pipe_data_received(1, pack(("ready",)))
    link.pipe_connection_lost(1, None)
    await link.aclose()
    failure = await link.ended()
    assert failure is not None
    assert failure.message == "the committer process is gone"


def test_the_engine_runs_under_uvloop(tmp_path: Path) -> None:
    async def session() -> Record | None:
        async with opened(tmp_path) as store:
            await store.commit([[Put(PEOPLE, b"k", b"v")]])
            return await store.get(PEOPLE, b"k")

    assert uvloop.run(session()) == Record(b"v", 1, 0)


def _make_tests_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The committer finds migrations by module name, and here they are in this module."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


def test_what_the_front_spawns_holds_nothing_of_the_store(tmp_path: Path) -> None:
    listing = "import os; print(*(os.path.realpath(f'/dev/fd/{n}') for n in os.listdir('/dev/fd')))"

    async def held_by_a_child() -> str:
        async with opened(tmp_path):
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", listing), stdout=asyncio.subprocess.PIPE
            )
            out, _ = await child.communicate()
            return out.decode()

    held = uvloop.run(held_by_a_child())
    assert "pipe:" in held or "socket:" in held  # its own output
    assert str(tmp_path) not in held
