"""The record of deletions: adds up, goes on, and shows what was done to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from letterlockd.records.v1.deletions_pb2 import DeletionRecord
from letterlockd.sealing.deletions import DELETIONS, HOUR_MS, Chain, Deletions, deletions_key
from letterlockd.sealing.errors import SealBroken
from letterlockd.sealing.keyring import TABLES, Keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Put, StoreFull

from tests.harness.clock import FakeClock

START_MS = 480_000 * HOUR_MS

Rows = list[tuple[bytes, bytes]]


class World:
    def __init__(self, keyring: Keyring, store: MemoryStore) -> None:
        self.keyring, self.store = keyring, store

    async def opened(self) -> Deletions:
        return await Deletions.open(self.store, self.keyring)

    async def entries(self) -> Rows:
        return [(key, row.value) for key, row in await self.store.scan(DELETIONS, limit=100)]

    async def checked(self) -> list[dict[str, int]]:
        chain = Chain(await deletions_key(self.keyring))
        found = [chain.opened(key, value) for key, value in await self.entries()]
        return [{one.table: one.count for one in entry.removed} for entry in found]


@pytest.fixture
async def world(tmp_path: Path) -> World:
    store = MemoryStore([*TABLES, DELETIONS])
    provider = FileKeyProvider(tmp_path / "key")
    return World(await Keyring.open(store, provider, FakeClock(START_MS)), store)


async def three_hours(world: World) -> None:
    record = await world.opened()
    for hour in range(3):
        record.note([("messages", hour + 1)])
        await record.write(START_MS + hour * HOUR_MS)


async def test_an_hour_adds_up_and_a_restart_goes_on_in_it(world: World) -> None:
    record = await world.opened()
    await record.write(START_MS)  # nothing was removed
    record.note([("inbox", 2), ("day-keys", 1)])
    await record.write(START_MS)
    again = await world.opened()
    again.note([("inbox", 3)])
    await again.write(START_MS + 1)
    again.note([("seen", 1)])
    await again.write(START_MS + HOUR_MS)
    assert await world.checked() == [{"day-keys": 1, "inbox": 5}, {"seen": 1}]
    (_, first), _ = await world.entries()
    assert DeletionRecord.FromString(first).due_until_ms == START_MS + 1


async def test_a_clock_that_goes_back_goes_on_in_the_newest_entry(world: World) -> None:
    await three_hours(world)
    record = await world.opened()
    record.note([("seen", 1)])
    await record.write(START_MS)
    assert await world.checked() == [{"messages": 1}, {"messages": 2}, {"messages": 3, "seen": 1}]


async def test_what_a_full_disk_refused_is_recorded_later(world: World) -> None:
    record = await world.opened()
    record.note([("seen", 1)])
    world.store.full = True
    with pytest.raises(StoreFull):
        await record.write(START_MS)
    world.store.full = False
    await record.write(START_MS)
    assert await world.checked() == [{"seen": 1}]


def _changed(rows: Rows) -> Rows:
    key, value = rows[1]
    entry = DeletionRecord.FromString(value)
    entry.removed[0].count += 1
    return [rows[0], (key, entry.SerializeToString()), rows[2]]


@pytest.mark.parametrize(
    "damage",
    [
        _changed,
        lambda rows: [rows[0], rows[2]],
        lambda rows: [rows[0], (rows[1][0], rows[2][1]), rows[2]],
        lambda rows: [rows[0], (rows[1][0], b"\xff"), rows[2]],
    ],
    ids=["changed", "taken out", "moved", "garbage"],
)
async def test_what_is_done_to_the_record_shows(
    world: World, damage: Callable[[Rows], Rows]
) -> None:
    await three_hours(world)
    chain = Chain(await deletions_key(world.keyring))
    damaged = damage(await world.entries())
    with pytest.raises(SealBroken):
        _ = [chain.opened(key, value) for key, value in damaged]


async def test_the_oldest_entries_may_expire(world: World) -> None:
    await three_hours(world)
    chain = Chain(await deletions_key(world.keyring))
    left = [chain.opened(key, value) for key, value in (await world.entries())[1:]]
    assert len(left) == 2


async def test_a_damaged_newest_entry_is_not_made_good_again(world: World) -> None:
    await three_hours(world)
    key, _ = (await world.entries())[-1]
    await world.store.commit([[Put(DELETIONS, key, b"\xff", START_MS * 2)]])
    record = await world.opened()
    record.note([("seen", 1)])
    await record.write(START_MS + 2 * HOUR_MS)
    rows = await world.entries()
    assert rows[2] == (key, b"\xff")
    assert len(rows) == 4
