from __future__ import annotations

import asyncio

import pytest
from letterlockd.gateway import outbox as module
from letterlockd.gateway.outbox import Outbox, OutboxRow
from letterlockd.gateway.tables import OUTBOX
from letterlockd.records.v1.gateway_pb2 import OutboxRecord
from letterlockd.store.memory import MemoryStore

LIFE_MS = 1


def record(name: int) -> OutboxRecord:
    return OutboxRecord(message_id=name.to_bytes(16, "big"), expire_ms=LIFE_MS)


def name(row: OutboxRow) -> int:
    return int.from_bytes(row.record.message_id, "big")


async def add(outbox: Outbox, store: MemoryStore, number: int) -> OutboxRow:
    row = outbox.stage(record(number))
    await store.commit([[row.put()]])
    outbox.committed(row)
    return row


async def test_rows_come_in_order_and_never_past_an_open_commit() -> None:
    store = MemoryStore([OUTBOX])
    outbox = await Outbox.open(store)
    late = outbox.stage(record(1))
    await add(outbox, store, 2)
    taking = asyncio.create_task(outbox.take(10))
    await asyncio.sleep(0)
    assert not taking.done()
    await store.commit([[late.put()]])
    outbox.committed(late)
    assert [name(row) for row in await taking] == [1, 2]


async def test_an_aborted_row_is_passed_over() -> None:
    store = MemoryStore([OUTBOX])
    outbox = await Outbox.open(store)
    gone = outbox.stage(record(1))
    await add(outbox, store, 2)
    outbox.aborted(gone)
    assert [name(row) for row in await outbox.take(10)] == [2]
    assert outbox.count == 1


async def test_rows_of_an_earlier_start_come_first() -> None:
    store = MemoryStore([OUTBOX])
    before = await Outbox.open(store)
    for number in range(5):
        await add(before, store, number)
    outbox = await Outbox.open(store)
    assert outbox.count == 5
    await add(outbox, store, 5)
    taken: list[int] = []
    while len(taken) < 6:
        taken += [name(row) for row in await outbox.take(2)]
    assert taken == list(range(6))


async def test_what_memory_cannot_hold_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_KEPT", 3)
    store = MemoryStore([OUTBOX])
    outbox = await Outbox.open(store)
    for number in range(10):
        await add(outbox, store, number)
    taken = [name(row) for row in await outbox.take(4)]
    hole = outbox.stage(record(10))
    await add(outbox, store, 11)
    while len(taken) < 10:
        taken += [name(row) for row in await outbox.take(4)]
    assert taken == list(range(10))
    await store.commit([[hole.put()]])
    outbox.committed(hole)
    while len(taken) < 12:
        taken += [name(row) for row in await outbox.take(4)]
    assert taken == list(range(12))
