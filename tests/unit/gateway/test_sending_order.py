"""Which rows are offered to the relay, and when, around one that it was too busy for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest
from letterlock.relay.v1 import mailbox_pb2
from letterlock.v1 import errors_pb2
from letterlockd.gateway.outbox import OutboxRow
from letterlockd.gateway.sending import Sending
from letterlockd.records.v1.gateway_pb2 import OutboxRecord
from letterlockd.uplink import Answered

from tests.harness.clock import FakeClock, settle, until

FULL = errors_pb2.ERROR_REASON_STORAGE_FULL
CHANGED = errors_pb2.ERROR_REASON_DEVICES_CHANGED
UNKNOWN = errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT


class Around:
    """A `Sending`, and fakes of what it talks to: an outbox, an uplink, the statuses."""

    def __init__(self) -> None:
        self.offered: list[int] = []
        self.withdrawn: set[int] = set()
        self.repaired: list[OutboxRow] = []
        self.connected = True
        self.flight = self
        self._rows: asyncio.Queue[list[OutboxRow]] = asyncio.Queue()
        clock = FakeClock()
        self.expire_ms = clock.now_ms() + 1_000_000
        fake = cast("Any", self)
        self.sending = Sending(
            fake,
            fake,
            fake,
            clock,
            max_unanswered=100,
            repair=lambda row, result: self.repaired.append(row),
            renew=self.repaired.append,
        )

    def row(self, sequence: int, *, conversation: bytes = b"c" * 32) -> OutboxRow:
        record = OutboxRecord(conversation=conversation, expire_ms=self.expire_ms)
        return OutboxRow(sequence, record)

    async def give(self, *sequences: int, conversation: bytes = b"c" * 32) -> None:
        self._rows.put_nowait([self.row(one, conversation=conversation) for one in sequences])
        await settle()

    async def offers(self, *expected: int) -> None:
        await until(lambda: len(self.offered) >= len(expected))
        assert self.offered == list(expected)
        self.offered.clear()

    def answer(self, reason: errors_pb2.ErrorReason.ValueType, *sequences: int) -> None:
        refused = errors_pb2.Refusal(reason=reason)
        refused.retry_after.FromMilliseconds(1)
        result = mailbox_pb2.SubmissionResult(refused=refused)
        self.sending.answered([Answered(sequence, result) for sequence in sequences])

    def accept(self, *sequences: int) -> None:
        result = mailbox_pb2.SubmissionResult()
        self.sending.answered([Answered(sequence, result) for sequence in sequences])

    # The outbox.
    async def take(self, limit: int) -> list[OutboxRow]:
        return await self._rows.get()

    def is_outdated(self, row: OutboxRow) -> bool:
        return False

    def taken(self, sequence: int) -> bool:
        return True

    def removed(self, count: int) -> None: ...

    # The uplink.
    def offer(self, tag: int, account: bytes, message_id: bytes, submission: bytes) -> None:
        self.offered.append(tag)

    def withdraw(self, tags: Iterable[int]) -> None:
        self.withdrawn |= set(tags)

    # The statuses.
    def record(self, advances: object, deletes: object, done: Any) -> None:
        done()

    record_overtakable = record


@pytest.fixture
async def around() -> Any:
    around = Around()
    running = asyncio.create_task(around.sending.run())
    yield around
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_later_rows_wait_behind_a_busy_one_and_others_do_not(around: Around) -> None:
    await around.give(1, 2)
    await around.offers(1, 2)
    around.answer(FULL, 1)
    await around.give(3)
    await around.give(4, conversation=b"d" * 32)
    await around.offers(4)
    around.answer(FULL, 2)
    await around.offers(1, 2, 3)
    assert around.sending.reading.waiting == 4


async def test_a_row_that_is_over_when_it_is_taken_is_not_offered(around: Around) -> None:
    await around.give(1)
    around.expire_ms = 1
    await around.give(2)
    around.expire_ms = 2**60
    await around.give(3)
    await around.offers(1, 3)
    assert around.sending.open == 2


async def test_what_the_relay_had_taken_is_not_offered_again(around: Around) -> None:
    await around.give(1, 2, 3)
    await around.offers(1, 2, 3)
    around.answer(FULL, 2)
    around.accept(1)
    around.accept(3)
    await around.offers(2)


async def test_a_row_under_repair_keeps_its_place(around: Around) -> None:
    await around.give(1, 2)
    await around.offers(1, 2)
    around.answer(CHANGED, 1)
    around.answer(FULL, 2)
    await settle()
    assert around.offered == []
    around.sending.resubmit(around.repaired[0])
    await around.offers(1, 2)


async def test_rows_behind_one_that_ends_go_on(around: Around) -> None:
    await around.give(1, 2, 3, 4)
    await around.offers(1, 2, 3, 4)
    around.answer(FULL, 1, 2)
    assert around.sending.expire(around.row(1))
    around.answer(UNKNOWN, 3)
    around.sending.let_go(around.row(4))
    await around.offers(2)
    assert around.sending.open == 1


async def test_after_a_lost_stream_what_was_out_waits_too(around: Around) -> None:
    await around.give(1, 2)
    await around.give(3, conversation=b"d" * 32)
    await around.offers(1, 2, 3)
    around.answer(FULL, 1)
    around.sending.lost()
    assert around.withdrawn == {2}
    await around.offers(1, 2)
