"""The inbox: horizon, order, partial rows, what was given, and the real engine's view of it."""

from __future__ import annotations

import pytest
from letterlockd.errors import BrokenInvariant, EnvironmentFault
from letterlockd.gateway.inbox import INBOX, Inbox, Page
from letterlockd.gateway.inbox_rows import INBOX_TABLES, PartialRows, row_key, rows_of
from letterlockd.limits import MAX_ROW_BYTES, MAX_ROW_EVENTS
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.inbox_pb2 import StoredEvent, StoredEvents
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import StoreFull
from letterlockd.streams.held import Item, Place

from tests.harness.clock import FakeClock

ACCOUNT, OTHER = AccountId(b"a" * 16), AccountId(b"o" * 16)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(INBOX_TABLES)


@pytest.fixture
async def inbox(store: MemoryStore, clock: FakeClock) -> Inbox:
    return await Inbox.open(store, clock)


def event(number: int, size: int = 0) -> StoredEvent:
    found = StoredEvent(time_ms=number)
    found.status.sealed_reference = b"x" * size
    return found


def staged(inbox: Inbox, clock: FakeClock, *numbers: int, account: AccountId = ACCOUNT):
    events = [event(number) for number in numbers]
    return inbox.stage(account, events, expires_at_ms=clock.now_ms() + 1_000)


async def record(store: MemoryStore, rows) -> None:
    await store.commit([rows.changes])
    rows.committed()


def numbers(page: Page) -> list[int]:
    return [item.content.time_ms for item in page.items]


async def read_all(inbox: Inbox, account: AccountId = ACCOUNT, limit: int = 10) -> list[Item]:
    found, start = [], 0
    while start < inbox.horizon(account):
        page = await inbox.read(account, start, limit=limit)
        assert page.reached > start
        found += page.items
        start = page.reached
    return found


async def test_events_are_read_in_order_page_by_page(inbox, store, clock) -> None:
    for number in range(7):
        await record(store, staged(inbox, clock, number))
    await record(store, staged(inbox, clock, 99, account=OTHER))
    assert [item.content.time_ms for item in await read_all(inbox, limit=3)] == list(range(7))


async def test_readers_stay_below_a_commit_that_is_open(inbox, store, clock) -> None:
    slow, fast = staged(inbox, clock, 1), staged(inbox, clock, 2)
    await record(store, fast)
    page = await inbox.read(ACCOUNT, 0, limit=10)
    assert numbers(page) == []
    assert page.reached == inbox.horizon(ACCOUNT)
    await record(store, slow)
    assert numbers(await inbox.read(ACCOUNT, page.reached, limit=10)) == [1, 2]


async def test_a_commit_that_did_not_happen_holds_nobody_up(inbox, store, clock) -> None:
    failed, fast = staged(inbox, clock, 1), staged(inbox, clock, 2)
    await record(store, fast)
    failed.aborted()
    assert numbers(await inbox.read(ACCOUNT, 0, limit=10)) == [2]


async def test_an_open_commit_of_one_number_does_not_hold_up_another(inbox, store, clock) -> None:
    staged(inbox, clock, 1)
    await record(store, staged(inbox, clock, 2, account=OTHER))
    assert numbers(await inbox.read(OTHER, 0, limit=10)) == [2]


async def test_rows_are_resolved_once(inbox, clock) -> None:
    rows = staged(inbox, clock, 1)
    rows.committed()
    with pytest.raises(BrokenInvariant):
        rows.aborted()
    with pytest.raises(BrokenInvariant):
        inbox.stage(ACCOUNT, [], expires_at_ms=1)


async def test_readers_are_woken_until_they_stop_listening(inbox, store, clock) -> None:
    woken: list[str] = []
    stop_first = inbox.listen(ACCOUNT, lambda: woken.append("first"))
    stop_second = inbox.listen(ACCOUNT, lambda: woken.append("second"))
    await record(store, staged(inbox, clock, 1))
    stop_first()
    staged(inbox, clock, 2).aborted()
    stop_second()
    await record(store, staged(inbox, clock, 3))
    assert woken == ["first", "second", "second"]


async def test_sequence_numbers_ascend_over_restarts(inbox, store, clock) -> None:
    await record(store, staged(inbox, clock, 1))
    again = await Inbox.open(store, clock)
    await record(store, staged(again, clock, 2))
    assert [item.content.time_ms for item in await read_all(again)] == [1, 2]


async def test_what_is_due_is_passed_over(inbox, store, clock) -> None:
    await record(store, staged(inbox, clock, 1))
    await clock.advance(1_000)
    await record(store, staged(inbox, clock, 2))
    page = await inbox.read(ACCOUNT, 0, limit=1)
    assert numbers(page) == []
    assert numbers(await inbox.read(ACCOUNT, page.reached, limit=1)) == [2]


async def test_a_row_is_deleted_with_its_last_event(inbox, store, clock) -> None:
    await record(store, staged(inbox, clock, 1, 2, 3))
    places = [item.place for item in await read_all(inbox)]
    await inbox.acknowledge(ACCOUNT, [places[0], places[2], places[0]])
    assert await store.count(INBOX) == 1
    assert [item.content.time_ms for item in await read_all(inbox)] == [2]
    await inbox.acknowledge(ACCOUNT, [places[1]])
    assert await store.count(INBOX) == 0


async def test_a_deletion_that_fails_brings_the_whole_row_again(inbox, store, clock) -> None:
    await record(store, staged(inbox, clock, 1, 2))
    places = [item.place for item in await read_all(inbox)]
    commit = store.commit

    async def full(commits):
        raise StoreFull("no space left", retry_after_ms=1)

    store.commit = full
    with pytest.raises(StoreFull):
        await inbox.acknowledge(ACCOUNT, places)
    store.commit = commit
    assert [item.content.time_ms for item in await read_all(inbox)] == [1, 2]


async def test_a_damaged_row_is_told_and_not_taken_for_an_empty_one(inbox, store, clock) -> None:
    rows = staged(inbox, clock, 1)
    rows.changes[0] = rows.changes[0]._replace(value=b"\xff\xff")
    await record(store, rows)
    with pytest.raises(EnvironmentFault) as caught:
        await inbox.read(ACCOUNT, 0, limit=10)
    assert caught.value.reason == "STORAGE_DAMAGED"


def test_rows_are_bounded_in_events_and_bytes() -> None:
    small = [event(number) for number in range(MAX_ROW_EVENTS + 1)]
    large = [event(number, MAX_ROW_BYTES // 2 + 1) for number in range(3)]
    huge = [event(0), event(1, 2 * MAX_ROW_BYTES), event(2)]
    for events, counts in ((small, [MAX_ROW_EVENTS, 1]), (large, [1, 1, 1]), (huge, [1, 1, 1])):
        rows = [list(StoredEvents.FromString(row.value).events) for row in rows_of(events)]
        assert [len(row) for row in rows] == counts
        assert [one for row in rows for one in row] == events


def test_partial_rows_are_bounded_and_forget_the_oldest() -> None:
    partial = PartialRows(bound=2)
    for sequence in (1, 2, 3):
        assert not partial.complete(row_key(ACCOUNT, sequence), Place(sequence, 0, 2))
    assert len(partial) == 2
    assert partial.acknowledged(row_key(ACCOUNT, 1)) == 0
    assert partial.complete(row_key(ACCOUNT, 3), Place(3, 1, 2))
    partial.take_back(row_key(ACCOUNT, 3), Place(3, 1, 2))
    assert partial.acknowledged(row_key(ACCOUNT, 3)) == 1
    partial.forget(row_key(ACCOUNT, 3))
    assert len(partial) == 1
