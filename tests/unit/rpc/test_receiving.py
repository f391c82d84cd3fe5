"""Dead letters, replay and policies, over a real server."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from letterlock.v1 import receiving_pb2 as api
from letterlockd.gateway import replay as replay_module
from letterlockd.gateway.inbox_rows import ACKNOWLEDGED, DEAD_LETTERS, INBOX
from letterlockd.gateway.reception import Policy, Receptions
from letterlockd.store.port import StoreFull

from tests.harness.messaging import (
    ACCOUNT,
    NUMBER,
    RETENTION_MS,
    TOKEN,
    USER,
    USER_NUMBER,
    Room,
    inbound_event,
    messaging_room,
    status_event,
)
from tests.unit.rpc.test_receive import acknowledge, events, names, opened, until_rows
from tests.unit.rpc.test_receive_sharing import keys, nack
from tests.unit.rpc.test_send import reason_of, until_closed


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with messaging_room() as room:
        yield room


def call(room: Room, method: str, **fields: Any):
    request_type = getattr(api, f"{method}Request")
    fields = {"business_number": NUMBER, **fields}
    return getattr(room.receiving, method)(request_type(**fields), metadata=TOKEN)


async def fault(answer) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """How a call of one answer fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    reason, metadata = reason_of(caught.value)
    return caught.value.code(), reason, metadata


async def dead(room: Room, *stored) -> list[str]:
    """Make dead letters of events; returns their ids."""
    await room.receptions.set_policy(ACCOUNT, Policy(max_attempts=1))
    await room.arrive(*stored)
    stream = await opened(room)
    ids = []
    for _ in stored:
        (event, *_) = [*(await stream.read()).events.events] or await events(stream, 1)
        ids.append(event.event_id)
        await nack(stream, event)
    await until_rows(room, 0)
    stream.cancel()
    await until_closed(room)
    return ids


async def test_a_list_shows_what_died_and_no_content(room: Room) -> None:
    (event_id,) = await dead(room, inbound_event(5, "very secret"))
    (row,) = [row for _, row in await room.store.scan(DEAD_LETTERS, limit=10)]
    assert b"very secret" not in row.value
    assert USER_NUMBER.encode() not in row.value
    (letter,) = (await call(room, "ListDeadLetters")).dead_letters
    assert (letter.event_id, letter.kind) == (event_id, "message")
    assert (letter.attempts, letter.last_failure) == (1, api.ATTEMPT_FAILURE_NACKED)
    assert letter.user_id == USER.hex()
    assert letter.event_time.ToMilliseconds() == 1_005
    assert letter.dead_time.ToMilliseconds() == room.clock.now_ms()
    assert letter.expire_time.ToMilliseconds() == room.clock.now_ms() + RETENTION_MS
    assert not letter.HasField("event")
    shown = await call(room, "GetDeadLetter", event_id=event_id)
    assert shown.event.message.content.text.body == "very secret"
    assert (shown.event.event_id, shown.event.attempt) == (event_id, 1)


async def test_lists_go_page_by_page(room: Room) -> None:
    ids = [(await dead(room, status_event(n)))[0] for n in range(5)]
    seen, token = [], ""
    while True:
        page = await call(room, "ListDeadLetters", page_size=2, page_token=token)
        seen += [letter.event_id for letter in page.dead_letters]
        if not (token := page.next_page_token):
            break
    assert seen == ids


async def test_a_replayed_dead_letter_comes_again_under_its_id(room: Room) -> None:
    (event_id,) = await dead(room, inbound_event(1, "again"))
    stream = await opened(room)
    answer = await call(room, "ReplayDeadLetters", event_ids=[event_id, event_id, "77.0"])
    assert answer.replayed == 1
    (event,) = await events(stream, 1)
    assert (event.event_id, event.attempt, event.redelivered) == (event_id, 1, True)
    assert event.message.content.text.body == "again"
    assert await room.store.count(DEAD_LETTERS) == 0
    await nack(stream, event)  # it may die again, under the same id
    await until_rows(room, 0)
    assert (await call(room, "GetDeadLetter", event_id=event_id)).event_id == event_id
    assert (await call(room, "ReplayDeadLetters", event_ids=[event_id])).replayed == 1
    (event,) = await events(stream, 1)
    await acknowledge(stream, event)
    await until_rows(room, 0)
    stream.cancel()


async def test_dropped_ones_are_gone(room: Room) -> None:
    ids = [(await dead(room, status_event(n)))[0] for n in range(2)]
    assert (await call(room, "DropDeadLetters", event_ids=[ids[0], "ff.1"])).dropped == 1
    assert (await call(room, "DropDeadLetters", event_ids=[ids[0]])).dropped == 0
    assert [one.event_id for one in (await call(room, "ListDeadLetters")).dead_letters] == ids[1:]


async def test_a_dead_letter_dies_with_its_retention(room: Room) -> None:
    (event_id,) = await dead(room, inbound_event(1))
    await room.clock.advance(RETENTION_MS)
    assert not (await call(room, "ListDeadLetters")).dead_letters
    assert (await call(room, "ReplayDeadLetters", event_ids=[event_id])).replayed == 0
    code, reason, _ = await fault(call(room, "GetDeadLetter", event_id=event_id))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    await room.store.sweep(room.clock.now_ms(), limit=100)
    assert await room.store.count(DEAD_LETTERS) == 0


async def test_one_whose_day_key_is_destroyed_is_not_shown(room: Room) -> None:
    (event_id,) = await dead(room, inbound_event(1))
    room.day_keys.destroyed = True
    code, reason, _ = await fault(call(room, "GetDeadLetter", event_id=event_id))
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


async def receive_all(room: Room, count: int) -> list:
    stream = await opened(room)
    given = await events(stream, count)
    await acknowledge(stream, *given)
    await until_rows(room, 0)
    stream.cancel()
    await until_closed(room)
    return given


async def test_by_default_nothing_acknowledged_is_kept(room: Room) -> None:
    await room.arrive(status_event(1))
    await receive_all(room, 1)
    assert await room.store.count(ACKNOWLEDGED) == 0
    answer = await call(room, "ReplayEvents", from_time=Timestamp())
    assert (answer.replayed, answer.next_cursor) == (0, "")


async def test_kept_events_come_again_from_a_time_or_an_event_on(room: Room) -> None:
    policy = api.ReceivePolicy(keep_acknowledged=Duration(seconds=60))
    told = await call(room, "SetReceivePolicy", policy=policy)
    assert (told.max_attempts, told.keep_acknowledged.seconds) == (10, 60)
    for number in range(5):
        await room.arrive(inbound_event(number))
    first = await receive_all(room, 5)
    assert await room.store.count(ACKNOWLEDGED) == 5
    stream = await opened(room)
    answer = await call(room, "ReplayEvents", from_time=_time_ms(1_003))
    assert (answer.replayed, answer.next_cursor) == (2, "")
    again = await events(stream, 2)
    assert names(again) == [3, 4]
    assert all(event.redelivered and event.attempt == 1 for event in again)
    assert [event.event_id for event in again] == [event.event_id for event in first[3:]]
    answer = await call(room, "ReplayEvents", from_event_id=first[1].event_id)
    assert answer.replayed == 2
    assert names(await events(stream, 2)) == [1, 2]
    assert await room.store.count(ACKNOWLEDGED) == 1
    stream.cancel()


def _time_ms(milliseconds: int) -> Timestamp:
    time = Timestamp()
    time.FromMilliseconds(milliseconds)
    return time


async def test_kept_events_die_on_time_and_cannot_be_replayed_then(room: Room) -> None:
    await room.receptions.set_policy(ACCOUNT, Policy(keep_ms=60_000))
    await room.arrive(inbound_event(1))
    await receive_all(room, 1)
    ((_, row),) = await room.store.scan(ACKNOWLEDGED, limit=10)
    assert row.expires_at_ms == room.clock.now_ms() + 60_000
    assert b"hi" not in row.value
    await room.clock.advance(60_000)
    assert (await call(room, "ReplayEvents", from_time=Timestamp())).replayed == 0
    await room.store.sweep(room.clock.now_ms(), limit=100)
    assert await room.store.count(ACKNOWLEDGED) == 0


async def test_nothing_is_kept_past_its_own_retention(room: Room) -> None:
    await room.receptions.set_policy(ACCOUNT, Policy(keep_ms=7 * 86_400_000))
    await room.arrive(inbound_event(1))
    await receive_all(room, 1)
    ((_, row),) = await room.store.scan(ACKNOWLEDGED, limit=10)
    assert row.expires_at_ms == room.clock.now_ms() + RETENTION_MS


async def test_a_replay_goes_on_where_the_part_before_ended(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "MAX_REPLAY_BYTES", 1)
    await room.receptions.set_policy(ACCOUNT, Policy(keep_ms=60_000))
    for number in range(4):
        await room.arrive(status_event(number), status_event(100 + number))
    await receive_all(room, 8)
    cursor, parts = "", []
    while True:
        answer = await call(room, "ReplayEvents", from_time=Timestamp(), cursor=cursor)
        parts.append(answer.replayed)
        if not (cursor := answer.next_cursor):
            break
    assert parts == [2, 2, 2, 2, 0]
    stream = await opened(room)
    assert keys(await events(stream, 8)) == [0, 100, 1, 101, 2, 102, 3, 103]
    stream.cancel()


async def test_without_space_an_acknowledged_event_is_deleted_and_counted(room: Room) -> None:
    await room.receptions.set_policy(ACCOUNT, Policy(keep_ms=60_000))
    await room.arrive(status_event(1))
    room.store.full = True
    await receive_all(room, 1)
    assert await room.store.count(ACKNOWLEDGED) == 0
    assert room.receptions.counters.unkept == 1


async def test_a_policy_outlives_the_process(room: Room) -> None:
    policy = api.ReceivePolicy(max_attempts=3, keep_acknowledged=Duration(seconds=9))
    await call(room, "SetReceivePolicy", policy=policy)
    assert await call(room, "GetReceivePolicy") == policy
    again = Receptions(room.store, room.inbox, room.clock)
    assert (await again.of(ACCOUNT)).policy == Policy(3, 9_000)


async def test_a_full_disk_is_told_and_nothing_half_done(room: Room) -> None:
    (event_id,) = await dead(room, status_event(1))
    room.store.full = True
    for method, fields in (
        ("ReplayDeadLetters", {"event_ids": [event_id]}),
        ("SetReceivePolicy", {"policy": api.ReceivePolicy(max_attempts=9)}),
    ):
        code, reason, _ = await fault(call(room, method, **fields))
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, StoreFull.reason)
    room.store.full = False
    assert (await room.receptions.of(ACCOUNT)).policy.max_attempts == 1
    assert (await call(room, "ReplayDeadLetters", event_ids=[event_id])).replayed == 1
    assert await room.store.count(INBOX) == 1


BAD = [
    ("ListDeadLetters", {"page_size": 1_001}, "page_size"),
    ("ListDeadLetters", {"page_token": "nonsense"}, "page_token"),
    ("GetDeadLetter", {"event_id": ""}, "event_id"),
    ("GetDeadLetter", {"event_id": "1"}, "event_id"),
    ("GetDeadLetter", {"event_id": "1.²"}, "event_id"),
    ("GetDeadLetter", {"event_id": "f" * 17 + ".0"}, "event_id"),
    ("ReplayDeadLetters", {}, "event_ids"),
    ("ReplayDeadLetters", {"event_ids": ["1.0"] * 1_001}, "event_ids"),
    ("ReplayDeadLetters", {"event_ids": ["1.0", "x.y"]}, "event_id"),
    ("DropDeadLetters", {}, "event_ids"),
    ("DropDeadLetters", {"event_ids": ["1.1000"]}, "event_id"),
    ("ReplayEvents", {}, "from"),
    ("ReplayEvents", {"from_event_id": "zz"}, "from_event_id"),
    ("ReplayEvents", {"from_time": Timestamp(seconds=-1)}, "from_time"),
    ("ReplayEvents", {"from_time": Timestamp(nanos=-1)}, "from_time"),
    ("ReplayEvents", {"from_event_id": "1.0", "cursor": "q"}, "cursor"),
    ("SetReceivePolicy", {"policy": api.ReceivePolicy(max_attempts=1_001)}, "policy.max_attempts"),
    (
        "SetReceivePolicy",
        {"policy": api.ReceivePolicy(keep_acknowledged=Duration(seconds=7 * 86_400 + 1))},
        "policy.keep_acknowledged",
    ),
    (
        "SetReceivePolicy",
        {"policy": api.ReceivePolicy(keep_acknowledged=Duration(seconds=-1))},
        "policy.keep_acknowledged",
    ),
]


@pytest.mark.parametrize(("method", "fields", "field"), BAD)
async def test_bad_input_is_named(
    room: Room, method: str, fields: dict[str, object], field: str
) -> None:
    code, reason, metadata = await fault(call(room, method, **fields))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert metadata["field"] == field
    assert metadata["limit"]


@pytest.mark.parametrize("method", sorted({method for method, _, _ in BAD} | {"GetReceivePolicy"}))
async def test_a_number_of_another_business_is_out_of_reach(room: Room, method: str) -> None:
    good = {
        "GetDeadLetter": {"event_id": "1.0"},
        "ReplayDeadLetters": {"event_ids": ["1.0"]},
        "DropDeadLetters": {"event_ids": ["1.0"]},
        "ReplayEvents": {"from_event_id": "1.0"},
    }
    fields = {"business_number": "+4915100000000", **good.get(method, {})}
    code, reason, _ = await fault(call(room, method, **fields))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
