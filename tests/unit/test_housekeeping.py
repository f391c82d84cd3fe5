from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from letterlockd.clock import WaryClock
from letterlockd.housekeeping import Duty, Sweeper
from letterlockd.records.v1.deletions_pb2 import DeletionRecord
from letterlockd.sealing.deletions import DELETIONS, Deletions
from letterlockd.sealing.errors import KeyDestroyed
from letterlockd.sealing.keyring import DAY_KEYS, DAY_MS, TABLES, Keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Put, Store, StoreFull, StoreUnavailable, Swept, Table

from tests.harness.clock import FakeClock, settle

LETTERS = Table("letters", 10, expires=True)
START_MS = 20_000 * DAY_MS


def _duty(store: Store, keep: frozenset[Table] = frozenset()) -> Duty:
    return Duty(store, Deletions(store, bytes(32), 0, DeletionRecord()), keep)


@asynccontextmanager
async def _running(sweeper: Sweeper) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(sweeper.run())
    await settle()
    yield task
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_it_sweeps_in_steps_until_nothing_is_due_and_again_at_each_interval() -> None:
    clock, store = FakeClock(START_MS), MemoryStore([LETTERS, DELETIONS])
    due = [Put(LETTERS, b"%d" % number, b"", START_MS + number // 5) for number in range(10)]
    await store.commit([due])
    sweeper = Sweeper(
        [_duty(store)], [], clock, interval_seconds=1, limit_per_step=2, sleep=clock.sleep
    )
    async with _running(sweeper):
        assert await store.count(LETTERS) == 5
        await clock.advance(999)
        assert await store.count(LETTERS) == 5
        await clock.advance(1)
        assert await store.count(LETTERS) == 0


async def test_ended_day_keys_leave_store_and_memory(tmp_path: Path) -> None:
    clock, store = FakeClock(START_MS), MemoryStore([*TABLES, DELETIONS])
    ring = await Keyring.open(store, FileKeyProvider(tmp_path / "key"), clock)
    day_key = await ring.day_key(b"", START_MS)
    sweeper = Sweeper([_duty(store)], [ring], clock, interval_seconds=60, sleep=clock.sleep)
    async with _running(sweeper):
        await clock.advance(DAY_MS)
        assert await store.count(DAY_KEYS) == 0
        clock.set_wall(START_MS)
        with pytest.raises(KeyDestroyed):
            await ring.day_key_by_id(b"", day_key.id)


class _FullOnce(MemoryStore):
    def __init__(self) -> None:
        super().__init__([LETTERS, DELETIONS])
        self.refusals = 1

    async def sweep(
        self, now_ms: int, *, limit: int, keep: frozenset[Table] = frozenset()
    ) -> Swept:
        if self.refusals:
            self.refusals -= 1
            raise StoreFull("no space left", retry_after_ms=1)
        return await super().sweep(now_ms, limit=limit, keep=keep)


async def test_a_full_store_does_not_stop_the_others_and_is_tried_again() -> None:
    clock, full, other = FakeClock(START_MS), _FullOnce(), MemoryStore([LETTERS, DELETIONS])
    for store in (full, other):
        await store.commit([[Put(LETTERS, b"k", b"", START_MS)]])
    duties = [_duty(full), _duty(other)]
    async with _running(Sweeper(duties, [], clock, interval_seconds=1, sleep=clock.sleep)):
        assert (await full.count(LETTERS), await other.count(LETTERS)) == (1, 0)
        await clock.advance(1_000)
        assert await full.count(LETTERS) == 0


async def test_kept_tables_are_left_to_their_owners() -> None:
    clock, store = FakeClock(START_MS), MemoryStore([LETTERS, *TABLES, DELETIONS])
    await store.commit([[Put(table, b"k", b"", START_MS) for table in (LETTERS, DAY_KEYS)]])
    duty = _duty(store, frozenset({LETTERS}))
    sweeper = Sweeper([duty], [], clock, interval_seconds=1, limit_per_step=1, sleep=clock.sleep)
    await sweeper.sweep_all()
    assert (await store.count(LETTERS), await store.count(DAY_KEYS)) == (1, 0)


async def test_a_clock_that_leaps_ahead_destroys_no_key(tmp_path: Path) -> None:
    clock, store = FakeClock(START_MS), MemoryStore([*TABLES, DELETIONS])
    ring = await Keyring.open(store, FileKeyProvider(tmp_path / "key"), clock)
    day_key = await ring.day_key(b"", START_MS)
    wary = WaryClock(clock)
    sweeper = Sweeper([_duty(store)], [ring], wary, interval_seconds=60, sleep=clock.sleep)
    clock.set_wall(START_MS + 40 * DAY_MS)
    await sweeper.sweep_all()
    clock.set_wall(START_MS)
    assert await ring.day_key_by_id(b"", day_key.id) == day_key


async def test_a_lost_store_ends_the_task() -> None:
    clock, store = FakeClock(START_MS), MemoryStore([LETTERS, DELETIONS])
    store.lose()
    with pytest.raises(StoreUnavailable):
        await Sweeper([_duty(store)], [], clock, interval_seconds=1, sleep=clock.sleep).run()
