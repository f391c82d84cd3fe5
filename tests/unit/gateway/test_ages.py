"""The oldest of what waits, over a store in memory."""

from __future__ import annotations

from letterlockd.gateway.ages import Ages
from letterlockd.gateway.inbox_rows import INBOX, row_key
from letterlockd.gateway.tables import MESSAGES, OUTBOX, outbox_key
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.gateway_pb2 import MessageRecord, OutboxRecord
from letterlockd.records.v1.inbox_pb2 import StoredEvent, StoredEvents
from letterlockd.store.port import Delete, Put

from tests.harness.clock import FakeClock
from tests.harness.gateway import gateway_store

NEVER_MS = 2**62


def event(account: bytes, sequence: int, time_ms: int) -> Put:
    row = StoredEvents(events=[StoredEvent(time_ms=time_ms), StoredEvent(time_ms=time_ms + 1)])
    return Put(INBOX, row_key(AccountId(account * 16), sequence), row.SerializeToString(), NEVER_MS)


def outgoing(sequence: int, message_id: bytes, update_ms: int) -> list[Put]:
    row, message = OutboxRecord(message_id=message_id), MessageRecord(update_ms=update_ms)
    return [
        Put(OUTBOX, outbox_key(sequence), row.SerializeToString(), NEVER_MS),
        Put(MESSAGES, message_id, message.SerializeToString(), NEVER_MS),
    ]


async def test_nothing_waits() -> None:
    ages = Ages(gateway_store(), FakeClock())
    await ages.look()
    assert (ages.unsent_s, ages.unacknowledged_s) == (0, 0)


async def test_the_oldest_of_all_numbers_and_of_the_outbox_is_told() -> None:
    clock, store = FakeClock(), gateway_store()
    now_ms = clock.now_ms()
    events = [
        event(b"a", 7, now_ms - 3_000),
        event(b"b", 5, now_ms - 9_000),
        event(b"b", 9, now_ms),
        event(b"c", 6, now_ms - 4_000),
    ]
    rows = [*outgoing(3, b"1" * 16, now_ms - 2_500), *outgoing(4, b"2" * 16, now_ms)]
    await store.commit([[*events, *rows]])
    ages = Ages(store, clock)
    await ages.look()
    assert (ages.unsent_s, ages.unacknowledged_s) == (2.5, 9.0)
    await clock.advance(1_000)
    assert (ages.unsent_s, ages.unacknowledged_s) == (3.5, 10.0)
    await store.commit(
        [
            [
                Delete(OUTBOX, outbox_key(3)),
                Delete(OUTBOX, outbox_key(4)),
                Delete(INBOX, row_key(AccountId(b"b" * 16), 5)),
            ]
        ]
    )
    await ages.look()
    assert (ages.unsent_s, ages.unacknowledged_s) == (0, 5.0)


async def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    clock, store = FakeClock(), gateway_store()
    await store.commit([outgoing(3, b"1" * 16, clock.now_ms())])
    ages = Ages(store, clock)
    await ages.look()
    clock.set_wall(clock.now_ms() - 60_000)
    assert ages.unsent_s == 0
