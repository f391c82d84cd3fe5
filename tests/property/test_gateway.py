"""The pure parts of the gateway's core against models, over random histories."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from letterlock.relay.v1 import mailbox_pb2 as wire
from letterlock.v1 import messaging_pb2 as api
from letterlockd.gateway import outbox as outbox_module
from letterlockd.gateway.outbox import Outbox, OutboxRow
from letterlockd.gateway.statuses import Status, advance
from letterlockd.gateway.tables import OUTBOX
from letterlockd.gateway.turns import Turns
from letterlockd.model.ids import ConversationId
from letterlockd.records.v1.gateway_pb2 import OutboxRecord
from letterlockd.store.memory import MemoryStore
from letterlockd.uplink.flight import Flight

ACCOUNT = b"a" * 16
STATUSES = [value for value in api.MessageStatus.values() if value]


@given(st.lists(st.sampled_from(STATUSES)))
def test_a_status_never_moves_back(news: Sequence[Status]) -> None:
    status: Status = api.MESSAGE_STATUS_ACCEPTED
    history = [status]
    for one in news:
        status = advance(status, one)
        history.append(status)
    assert history == sorted(history)
    ends = [one for one in history if one >= api.MESSAGE_STATUS_FAILED]
    assert len(set(ends)) <= 1


class Item:
    def __init__(self, conversation: int, name: int, day: int) -> None:
        self.conversation = ConversationId(bytes([conversation]))
        self.name = name
        self.day = day


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 2), st.integers(0, 1)),
            st.tuples(st.just("take"), st.integers(1, 4), st.just(0)),
            st.tuples(st.sampled_from(["release", "put back"]), st.just(0), st.just(0)),
        )
    )
)
def test_a_conversation_is_worked_once_at_a_time_and_in_order(
    steps: list[tuple[str, int, int]],
) -> None:
    turns: Turns[Item] = Turns()
    busy: dict[ConversationId, list[Item]] = {}
    done: dict[ConversationId, list[int]] = {}
    for name, (step, number, day) in enumerate(steps):
        if step == "put":
            turns.put(Item(number, name, day))
        elif step == "take":
            for conversation, items in turns.take(number):
                assert conversation not in busy
                assert len({item.day for item in items}) == 1
                busy[conversation] = items
        elif busy:
            conversation, items = busy.popitem()
            if step == "put back":
                turns.put_back(conversation, items)
            else:
                done.setdefault(conversation, []).extend(item.name for item in items)
            turns.release(conversation)
    while turns or busy:
        for conversation, items in list(busy.items()) + turns.take(100):
            busy.pop(conversation, None)
            done.setdefault(conversation, []).extend(item.name for item in items)
            turns.release(conversation)
    assert all(names == sorted(names) for names in done.values())
    assert sum(map(len, done.values())) == sum(step == "put" for step, _, _ in steps)
    assert turns.idle


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["stage", "commit", "commit last", "abort", "take", "restart"])),
    st.integers(0, 3),
)
def test_the_outbox_gives_every_committed_row_once_and_in_order(
    steps: list[str], kept: int
) -> None:
    before, outbox_module._MAX_KEPT = outbox_module._MAX_KEPT, kept
    try:
        asyncio.run(_play_outbox(steps))
    finally:
        outbox_module._MAX_KEPT = before


async def _play_outbox(steps: list[str]) -> None:
    store = MemoryStore([OUTBOX])
    outbox = await Outbox.open(store)
    staged: list[OutboxRow] = []
    committed: set[int] = set()
    taken: list[int] = []
    for step in steps:
        if step == "stage":
            staged.append(outbox.stage(OutboxRecord(expire_ms=1)))
        elif step.startswith("commit") and staged:
            row = staged.pop(-1 if step == "commit last" else 0)
            await store.commit([[row.put()]])
            outbox.committed(row)
            committed.add(row.sequence)
        elif step == "abort" and staged:
            outbox.aborted(staged.pop())
        elif step == "take":
            taken += await _take_what_is_there(outbox)
        elif step == "restart":
            outbox, staged, taken = await Outbox.open(store), [], []
    for row in staged:
        outbox.aborted(row)
    while (more := await _take_what_is_there(outbox)) != []:
        taken += more
    assert taken == sorted(committed)


async def _take_what_is_there(outbox: Outbox) -> list[int]:
    taking = asyncio.create_task(outbox.take(2))
    for _ in range(5):
        await asyncio.sleep(0)
    if taking.done():
        return [row.sequence for row in taking.result()]
    taking.cancel()
    return []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["offer", "say", "lose"]), st.just(0)),
            st.tuples(st.just("answer"), st.integers(0, 20)),
        )
    )
)
def test_every_submission_is_said_until_it_is_answered(steps: list[tuple[str, int]]) -> None:
    flight: Flight[int] = Flight()
    offered = 0
    answered: set[int] = set()
    said: list[int] = []
    for step, number in steps:
        if step == "offer":
            name = offered.to_bytes(16, "big")
            submission = wire.Submission(message_id=name, sender_account_id=ACCOUNT)
            flight.offer(offered, ACCOUNT, name, submission.SerializeToString())
            offered += 1
        elif step == "say":
            said += _said(flight)
        elif step == "lose":
            flight.lost()
            said = []
        elif number in said and number not in answered:
            answered |= _answer(flight, number)
    flight.lost()
    assert _said(flight) == [tag for tag in range(offered) if tag not in answered]


def _said(flight: Flight[int]) -> list[int]:
    frame = flight.next_frame()
    if frame is None:
        return []
    submissions = wire.ConnectRequest.FromString(frame).submissions.submissions
    return [int.from_bytes(one.message_id, "big") for one in submissions]


def _answer(flight: Flight[int], number: int) -> set[int]:
    result = wire.SubmissionResult(message_id=number.to_bytes(16, "big"), sender_account_id=ACCOUNT)
    answers = flight.answered(wire.SubmissionResults(results=[result]))
    return {answer.tag for answer in answers}
