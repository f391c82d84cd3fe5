"""Receive over a real server on loopback."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from letterlock.v1 import messaging_pb2
from letterlock.v1.messaging_pb2 import ReceiveAcks, ReceiveOpen, ReceiveRequest
from letterlockd.gateway.inbox import INBOX
from letterlockd.limits import MAX_WINDOW
from letterlockd.store.port import StoreFull

from tests.harness.clock import settle
from tests.harness.messaging import (
    ACCOUNT,
    NUMBER,
    RETENTION_MS,
    USER,
    USER_NUMBER,
    Room,
    inbound_event,
    messaging_room,
    status_event,
)
from tests.unit.rpc.test_send import ends_well, fault, read_to_end, until_closed


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with messaging_room() as room:
        yield room


async def opened(room: Room, **options: object):
    call = room.receive()
    await call.write(ReceiveRequest(open=ReceiveOpen(business_number=NUMBER, **options)))
    answer = await call.read()
    assert answer.opened.window == (options.get("window") or 1_000)
    return call


async def events(call, count: int) -> list[messaging_pb2.Event]:
    """The next `count` events; passes over the caught-up frame."""
    found: list[messaging_pb2.Event] = []
    while len(found) < count:
        frame = await call.read()
        assert frame is not grpc.aio.EOF
        found += frame.events.events
    assert len(found) == count
    return found


async def acknowledge(call, *given: messaging_pb2.Event) -> None:
    ids = [event.event_id for event in given]
    await call.write(ReceiveRequest(acks=ReceiveAcks(event_ids=ids)))


async def until_rows(room: Room, count: int) -> None:
    async with asyncio.timeout(10):
        while await room.store.count(INBOX) != count:  # noqa: ASYNC110
            await asyncio.sleep(0)


def names(given: list[messaging_pb2.Event]) -> list[int]:
    return [int(event.message.message_id, 16) for event in given]


async def test_a_message_is_opened_for_the_business_alone(room: Room) -> None:
    await room.arrive(inbound_event(7, "good morning"))
    (_, record), *_ = await room.store.scan(INBOX, limit=10)
    assert b"good morning" not in record.value
    assert USER_NUMBER.encode() not in record.value
    call = await opened(room)
    (event,) = await events(call, 1)
    assert event.message.content.text.body == "good morning"
    assert event.message.phone_number == USER_NUMBER
    assert event.message.user_id == USER.hex()
    assert event.event_time.ToMilliseconds() == 1_007
    assert not event.redelivered
    call.cancel()


async def test_backlog_then_caught_up_once_then_what_arrives(room: Room) -> None:
    for number in range(3):
        await room.arrive(inbound_event(number))
    call = await opened(room)
    assert names(list((await call.read()).events.events)) == [0, 1, 2]
    assert (await call.read()).HasField("caught_up")
    await room.arrive(status_event(3))
    (event,) = (await call.read()).events.events
    assert event.status.idempotency_key == "key-3"
    assert event.status.status == messaging_pb2.MESSAGE_STATUS_SENT
    call.cancel()


async def test_an_empty_inbox_is_caught_up_at_once(room: Room) -> None:
    call = await opened(room)
    assert (await call.read()).HasField("caught_up")
    call.cancel()


async def test_new_leaves_the_backlog_to_a_later_stream(room: Room) -> None:
    await room.arrive(inbound_event(1))
    call = await opened(room, start=messaging_pb2.RECEIVE_START_NEW)
    assert (await call.read()).HasField("caught_up")
    await room.arrive(inbound_event(2))
    assert names(await events(call, 1)) == [2]
    call.cancel()
    await until_closed(room)
    again = await opened(room)
    given = await events(again, 2)
    assert names(given) == [1, 2]
    assert [event.redelivered for event in given] == [False, True]
    again.cancel()


async def test_never_more_out_than_the_window(room: Room) -> None:
    await room.arrive(*[inbound_event(number) for number in range(10)])
    call = await opened(room, window=3)
    first = await events(call, 3)
    await settle()
    (open_call,) = room.messaging._calls
    assert open_call._consumer.used == 3
    await acknowledge(call, first[1])
    assert names(await events(call, 1)) == [3]
    await acknowledge(call, first[0], first[2])
    assert names(await events(call, 2)) == [4, 5]
    call.cancel()


async def test_a_row_goes_when_all_its_events_are_acknowledged(room: Room) -> None:
    await room.arrive(*[inbound_event(number) for number in range(3)])
    call = await opened(room)
    given = await events(call, 3)
    await acknowledge(call, given[0], given[2])
    await acknowledge(call, given[0])  # a repeat counts once
    await room.arrive(inbound_event(9))
    (other,) = await events(call, 1)
    await acknowledge(call, other)
    await until_rows(room, 1)
    await acknowledge(call, given[1])
    await until_rows(room, 0)
    call.cancel()


async def test_unknown_ids_free_no_room(room: Room) -> None:
    await room.arrive(inbound_event(1), inbound_event(2))
    call = await opened(room, window=1)
    (first,) = await events(call, 1)
    await call.write(ReceiveRequest(acks=ReceiveAcks(event_ids=["nonsense", "1.0", "ffff.9"])))
    await call.write(ReceiveRequest(acks=ReceiveAcks(event_ids=[first.event_id, first.event_id])))
    (second,) = await events(call, 1)
    assert names([second]) == [2]
    (open_call,) = room.messaging._calls
    assert open_call._consumer.used == 1
    call.cancel()


async def test_what_was_not_acknowledged_comes_again_marked(room: Room) -> None:
    await room.arrive(*[inbound_event(number) for number in range(4)])
    call = await opened(room, window=3)
    given = await events(call, 3)
    await acknowledge(call, given[1])
    assert names(await events(call, 1)) == [3]
    call.cancel()
    await until_closed(room)
    await room.arrive(inbound_event(4))
    again = await opened(room)
    given = await events(again, 4)
    assert names(given) == [0, 2, 3, 4]
    assert [event.redelivered for event in given] == [True, True, True, False]
    again.cancel()


async def test_a_newer_stream_of_a_consumer_takes_what_the_older_had(room: Room) -> None:
    await room.arrive(inbound_event(1), inbound_event(2))
    older = await opened(room, consumer="worker 1")
    given = await events(older, 2)
    await acknowledge(older, given[0])
    newer = await opened(room, consumer="worker 1")
    code, reason, _ = await fault(older)
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REPLACED")
    again = await events(newer, len(given) - 1)
    assert 2 in names(again)
    assert {event.attempt for event in again} == {1}
    other = await opened(room, consumer="worker 2")
    third = await opened(room, consumer="worker 1")
    await fault(newer)
    for call in (other, third):
        call.cancel()
    await until_closed(room)
    assert room.messaging._named == {}


async def test_draining_takes_last_acknowledgements(room: Room) -> None:
    await room.arrive(inbound_event(1))
    call = await opened(room)
    given = await events(call, 1)
    assert (await call.read()).HasField("caught_up")
    draining = asyncio.create_task(room.messaging.drain(50.0))
    assert (await call.read()).draining.grace.seconds == 40
    await room.arrive(inbound_event(2))
    await acknowledge(call, *given)
    await ends_well(call)
    await draining
    assert await room.store.count(INBOX) == 1  # the second one waits


async def test_draining_ends_when_its_grace_is_over(room: Room) -> None:
    await room.arrive(inbound_event(1))
    call = await opened(room)
    await events(call, 1)
    assert (await call.read()).HasField("caught_up")
    await room.messaging.drain(0.0)
    assert (await call.read()).HasField("draining")
    await ends_well(call)
    assert await room.store.count(INBOX) == 1


async def test_half_close_commits_what_was_acknowledged(room: Room) -> None:
    await room.arrive(inbound_event(1), inbound_event(2))
    call = await opened(room)
    await acknowledge(call, *await events(call, 2))
    await call.done_writing()
    await read_to_end(call)
    assert await call.code() is grpc.StatusCode.OK
    assert await room.store.count(INBOX) == 0


async def test_a_removed_number_ends_the_stream(room: Room) -> None:
    call = await opened(room)
    room.registry.remove_number()
    code, reason, _ = await fault(call)
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
    await until_closed(room)
    assert not room.registry.removals


async def test_a_revoked_token_ends_the_stream(room: Room) -> None:
    call = await opened(room)
    room.registry.revoke()
    code, reason, _ = await fault(call)
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    await until_closed(room)


async def test_a_cancelled_stream_loses_nothing(room: Room) -> None:
    await room.arrive(inbound_event(1))
    call = await opened(room)
    await events(call, 1)
    call.cancel()
    await until_closed(room)
    assert not (await room.receptions.of(ACCOUNT)).leases.has_consumers
    again = await opened(room)
    assert names(await events(again, 1)) == [1]
    again.cancel()


async def test_a_message_whose_day_key_is_destroyed_is_gone(room: Room) -> None:
    change = inbound_event(3)
    change.identity_change.SetInParent()
    await room.arrive(inbound_event(1))
    await room.arrive(status_event(2))
    await room.arrive(change)
    room.day_keys.destroyed = True
    call = await opened(room)
    (event,) = await events(call, 1)
    assert event.HasField("identity_change")
    assert room.handover.counters.outlived == 2
    await until_rows(room, 1)
    call.cancel()


async def test_a_broken_seal_is_given_as_undecryptable(room: Room) -> None:
    event = inbound_event(1)
    event.inbound.sealed_payload = event.inbound.sealed_payload[:-1] + b"x"
    await room.arrive(event)
    call = await opened(room)
    (given,) = await events(call, 1)
    assert given.undecryptable.user_id == USER.hex()
    assert given.undecryptable.device_id == 1
    assert room.handover.counters.unreadable == 1
    call.cancel()


async def test_a_status_whose_reference_does_not_open_is_told_without_it(room: Room) -> None:
    broken = status_event(1)
    broken.status.sealed_reference = status_event(2).status.sealed_reference  # another message's
    await room.arrive(broken)
    call = await opened(room)
    (event,) = await events(call, 1)
    assert event.status.message_id == broken.status.message_id.hex()
    assert event.status.status == messaging_pb2.MESSAGE_STATUS_SENT
    assert (event.status.idempotency_key, event.status.caller_tag) == ("", b"")
    assert room.handover.counters.unreadable == 1
    call.cancel()


async def test_identity_change_and_undecryptable_are_given(room: Room) -> None:
    change, lost = inbound_event(1), inbound_event(2)
    change.identity_change.SetInParent()
    lost.undecryptable.device_id = 3
    await room.arrive(change, lost)
    call = await opened(room)
    given = await events(call, 2)
    assert given[0].identity_change.user_id == USER.hex()
    assert given[1].undecryptable.device_id == 3
    call.cancel()


async def test_what_is_due_is_not_given(room: Room) -> None:
    await room.arrive(inbound_event(1))
    await room.clock.advance(RETENTION_MS)
    await room.arrive(inbound_event(2))
    call = await opened(room)
    assert names(await events(call, 1)) == [2]
    call.cancel()


async def test_a_row_that_commits_late_is_not_passed(room: Room) -> None:
    expires = room.clock.now_ms() + RETENTION_MS
    late = room.inbox.stage(ACCOUNT, [inbound_event(1)], expires_at_ms=expires)
    await room.arrive(inbound_event(2))
    call = await opened(room)
    assert (await call.read()).HasField("caught_up")
    await room.store.commit([late.changes])
    late.committed()
    assert names(await events(call, 2)) == [1, 2]
    call.cancel()


async def test_a_caller_that_never_reads_costs_its_window(room: Room) -> None:
    for start in range(0, 2_000, 100):
        await room.arrive(*[inbound_event(start + n, "x" * 16_000) for n in range(100)])
    call = await opened(room, window=2_000)
    await settle(2_000)
    (open_call,) = room.messaging._calls
    assert 0 < open_call._consumer.used < 2_000  # flow control acts before the window does
    assert len(open_call._reception.leases._items) < 2_000
    call.cancel()


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (ReceiveRequest(acks=ReceiveAcks(event_ids=["1.0"])), "UNEXPECTED_FRAME", "acks"),
        (ReceiveRequest(), "UNEXPECTED_FRAME", "frame"),
        (
            ReceiveRequest(open=ReceiveOpen(business_number=NUMBER, window=MAX_WINDOW + 1)),
            "INVALID_FIELD",
            "open.window",
        ),
        (
            ReceiveRequest(open=ReceiveOpen(business_number=NUMBER, start=77)),
            "INVALID_FIELD",
            "open.start",
        ),
    ],
)
async def test_a_bad_first_frame(
    room: Room, request_: ReceiveRequest, reason: str, field: str
) -> None:
    call = room.receive()
    await call.write(request_)
    code, found, metadata = await fault(call)
    assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert metadata["field"] == field
    await until_closed(room)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (ReceiveRequest(open=ReceiveOpen(business_number=NUMBER)), "UNEXPECTED_FRAME"),
        (ReceiveRequest(), "UNEXPECTED_FRAME"),
        (ReceiveRequest(acks=ReceiveAcks()), "INVALID_FIELD"),
        (ReceiveRequest(acks=ReceiveAcks(event_ids=["1.0"] * 10_001)), "INVALID_FIELD"),
    ],
)
async def test_a_bad_later_frame(room: Room, request_: ReceiveRequest, reason: str) -> None:
    call = await opened(room)
    await call.write(request_)
    code, found, _ = await fault(call)
    assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_a_number_of_another_business_is_not_received(room: Room) -> None:
    call = room.receive()
    await call.write(ReceiveRequest(open=ReceiveOpen(business_number="+4915100000000")))
    code, reason, _ = await fault(call)
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")


async def test_a_full_disk_ends_the_stream_and_loses_nothing(room: Room) -> None:
    await room.arrive(inbound_event(1))
    call = await opened(room)
    given = await events(call, 1)
    commit = room.store.commit

    async def full(commits):
        raise StoreFull("no space left", retry_after_ms=1_000)

    room.store.commit = full
    await acknowledge(call, *given)
    code, reason, _ = await fault(call)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL")
    room.store.commit = commit
    again = await opened(room)
    assert names(await events(again, 1)) == [1]
    again.cancel()
