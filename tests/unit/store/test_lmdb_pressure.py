"""Growth, the size limit, back-pressure, cancelled calls, and a committer that hangs."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from letterlockd.store.lmdb import link
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.store.lmdb.verify import verify
from letterlockd.store.port import Delete, Put, StoreFull, StoreUnavailable

from tests.harness.clock import settle
from tests.unit.store.contract import LETTERS, PEOPLE
from tests.unit.store.test_lmdb_open import opened

MIB = 1 << 20


async def test_the_map_grows_while_reads_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path, map_size=MIB) as store:
        for number in range(40):
            key = b"%d" % number
            assert await store.commit([[Put(PEOPLE, key, bytes(300_000))]]) == [None]
            record = await store.get(PEOPLE, key)
            assert record is not None
            assert len(record.value) == 300_000
        assert await store.count(PEOPLE) == 40
    assert (tmp_path / "data.mdb").stat().st_size > 11 * MIB


async def test_a_store_at_its_limit_refuses_whole_calls_and_takes_more_after_a_sweep(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, map_size=MIB, max_size_bytes=2 * MIB) as store:
        stored, full = await _fill(store)
        assert full.reason == "STORAGE_FULL"
        assert full.retry_after_ms is not None
        assert 100 < stored < 210
        with pytest.raises(StoreFull):
            await store.commit([[Delete(LETTERS, b"0000")], [Put(PEOPLE, b"k", bytes(500_000))]])
        assert await store.count(LETTERS) == stored
        assert await store.commit([[Delete(LETTERS, b"0000")]]) == [None]
        swept = await store.sweep(10 + stored // 2, limit=10_000)
        assert (swept.removed, swept.more) == ((("letters", stored // 2),), False)
        for number in range(stored // 4):
            again = Put(LETTERS, b"new%d" % number, bytes(10_000), 10_000)
            assert await store.commit([[again]]) == [None]
    assert verify(tmp_path).differences == []
    assert (tmp_path / "data.mdb").stat().st_size <= 3 * MIB


async def test_its_readings_tell_of_a_full_store_and_of_a_writer_that_stands_still(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, map_size=MIB, max_size_bytes=2 * MIB) as store:
        passed = store.writer().passed
        await store.prove()
        assert store.writer() == (0, passed + 1, 0)
        assert store.commit_times.read()[1] == 0
        await _fill(store)
        assert store.space() == (0, 0, 1)
        os.kill(store.committer_pid, signal.SIGSTOP)
        probe = asyncio.create_task(store.prove())
        await settle()
        before = store.writer()
        assert before.waiting == 1
        os.kill(store.committer_pid, signal.SIGCONT)
        with suppress(StoreFull):  # it is small, and may fit
            await probe
        after = store.writer()
        assert (after.waiting, after.passed) == (0, before.passed + 1)


async def test_calls_wait_when_the_queue_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_MAX_COMMITS_QUEUED", 10)
    async with opened(tmp_path) as store:
        os.kill(store.committer_pid, signal.SIGSTOP)
        calls = [
            asyncio.create_task(store.commit([[Put(PEOPLE, b"%d" % n, b"v")]])) for n in range(35)
        ]
        await settle()
        assert len(store._link._waiting) == 10
        os.kill(store.committer_pid, signal.SIGCONT)
        assert await asyncio.gather(*calls) == [[None]] * 35


async def test_a_cancelled_call_gives_its_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_MAX_COMMITS_QUEUED", 2)
    async with opened(tmp_path) as store:
        os.kill(store.committer_pid, signal.SIGSTOP)
        calls = [
            asyncio.create_task(store.commit([[Put(PEOPLE, b"%d" % n, b"v")]])) for n in range(6)
        ]
        await settle()
        for cancelled in (calls[0], calls[3]):  # one is on its way, one waits for room
            cancelled.cancel()
        os.kill(store.committer_pid, signal.SIGCONT)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(asyncio.CancelledError) == 2
        assert await store.commit([[Put(PEOPLE, b"last", b"v")]]) == [None]
        keys = [key for key, _ in await store.scan(PEOPLE, limit=10)]
        assert keys == [b"0", b"1", b"2", b"4", b"5", b"last"]


async def test_a_committer_that_does_not_answer_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_ANSWER_SECONDS", 0.05)
    async with opened(tmp_path) as store:
        os.kill(store.committer_pid, signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            await store.commit([[Put(PEOPLE, b"k", b"v")]])
        assert await store.failed() is not None
    async with opened(tmp_path, lock_wait_seconds=5):
        pass


async def test_a_committer_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_EXIT_SECONDS", 0.05)
    async with opened(tmp_path) as store:
        os.kill(store.committer_pid, signal.SIGSTOP)
    async with opened(tmp_path):
        pass


async def _fill(store: LmdbStore) -> tuple[int, StoreFull]:
    """Put letters that expire at 10, 11, 12 … until full: how many, and the refusal."""
    stored = 0
    while True:
        try:
            await store.commit([[Put(LETTERS, b"%04d" % stored, bytes(10_000), 10 + stored)]])
        except StoreFull as full:
            return stored, full
        stored += 1
