"""Receive beyond acknowledgements, over a real server: nacks, leases, attempts, several streams."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from letterlock.v1.messaging_pb2 import (
    ReceiveExtensions,
    ReceiveNacks,
    ReceiveOpen,
    ReceiveRequest,
    ReceiveResponse,
)
from letterlock.v1.receiving_pb2 import AttemptFailure
from letterlockd.gateway.inbox_rows import DEAD_LETTERS, INBOX
from letterlockd.gateway.reception import Policy
from letterlockd.limits import MAX_UNWRITTEN_FRAMES
from letterlockd.model.ids import Pseudonym
from letterlockd.records.v1.inbox_pb2 import StoredEvent
from letterlockd.store.port import StoreFull
from letterlockd.streams.held import Failure

from tests.harness.clock import settle
from tests.harness.messaging import ACCOUNT, NUMBER, Room, messaging_room, status_event
from tests.unit.rpc.test_receive import acknowledge, events, opened, until_rows
from tests.unit.rpc.test_send import ends_well, fault, until_closed


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with messaging_room() as room:
        yield room


def of(user: str, number: int) -> StoredEvent:
    event = status_event(number)
    event.pseudonym = Pseudonym(user.encode() * 16)
    return event


def keys(given) -> list[int]:
    return [int(event.status.message_id, 16) for event in given]


async def nack(call, *given, seconds: int = 0) -> None:
    ids = [event.event_id for event in given]
    nacks = ReceiveNacks(event_ids=ids, delay=Duration(seconds=seconds))
    await call.write(ReceiveRequest(nacks=nacks))


async def until_read(call) -> None:
    """Return when the gateway has read all frames: the last one is a nack of nothing."""
    await call.write(ReceiveRequest(nacks=ReceiveNacks(event_ids=["none"])))
    while not (await call.read()).HasField("nacked"):
        pass


class _HeldWrite:
    """The next frame of the room's one call waits in its write until `free` is set."""

    def __init__(self, room: Room) -> None:
        (self.call,) = room.messaging._calls
        self.reached, self.free = asyncio.Event(), asyncio.Event()
        self._context, self.call._context = self.call._context, self

    def __getattr__(self, name: str) -> object:
        return getattr(self._context, name)

    async def write(self, frame: ReceiveResponse) -> None:
        self.reached.set()
        await self.free.wait()
        await self._context.write(frame)

    async def answers(self, count: int) -> None:
        """Wait until so many frames wait behind the held one."""
        while len(self.call._frames) < count:
            self.call._attention.clear()
            await self.call._attention.wait()


async def tick(room: Room, seconds: float) -> None:
    """Let time pass; the timer of the real loop is not waited for."""
    await room.clock.advance(int(seconds * 1_000))
    (await room.receptions.of(ACCOUNT))._tick()


async def test_a_nacked_event_comes_again_with_those_behind_it(room: Room) -> None:
    await room.arrive(of("a", 1), of("a", 2), of("b", 3))
    call = await opened(room)
    first, second, third = await events(call, 3)
    assert [event.attempt for event in (first, second, third)] == [1, 1, 1]
    await nack(call, first)
    again = await events(call, 2)
    assert keys(again) == [1, 2]
    assert [event.event_id for event in again] == [first.event_id, second.event_id]
    assert [(event.attempt, event.redelivered) for event in again] == [(2, True), (1, True)]
    await acknowledge(call, *again, third)
    await until_rows(room, 0)
    call.cancel()


async def test_nacks_are_answered_in_the_order_of_the_stream(room: Room) -> None:
    """Before the answer comes what its nack took back, behind it what is given anew."""
    await room.arrive(of("a", 1), of("a", 2))
    call = await opened(room)
    given = await events(call, 2)
    assert (await call.read()).HasField("caught_up")
    write = _HeldWrite(room)
    await room.arrive(of("a", 3))
    await write.reached.wait()  # on its way
    await nack(call, given[0])
    await nack(call, given[1])
    await write.answers(2)
    write.free.set()
    frames = [await call.read() for _ in range(4)]
    assert [keys(frame.events.events) for frame in frames] == [[3], [], [], [1, 2, 3]]
    answered = [list(frame.nacked.event_ids) for frame in frames[1:3]]
    assert answered == [[event.event_id] for event in given]
    call.cancel()


async def test_a_caller_that_nacks_and_never_reads_is_read_no_further(room: Room) -> None:
    await room.arrive(of("a", 1))
    call = await opened(room)
    given = await events(call, 1)
    assert (await call.read()).HasField("caught_up")
    write = _HeldWrite(room)
    await room.arrive(of("b", 2))
    await write.reached.wait()
    for _ in range(2 * MAX_UNWRITTEN_FRAMES):
        await nack(call, *given)
    await write.answers(MAX_UNWRITTEN_FRAMES + 1)
    await settle()
    assert len(write.call._frames) == MAX_UNWRITTEN_FRAMES + 1
    write.free.set()
    nacked = 0
    while nacked < 2 * MAX_UNWRITTEN_FRAMES:
        nacked += (await call.read()).HasField("nacked")
    call.cancel()


async def test_a_delay_holds_back_its_conversation_alone(room: Room) -> None:
    await room.arrive(of("a", 1), of("a", 2), of("b", 3))
    call = await opened(room)
    first, *_ = await events(call, 3)
    assert (await call.read()).HasField("caught_up")
    await nack(call, first, seconds=30)
    assert (await call.read()).HasField("nacked")
    await room.arrive(of("b", 4), of("a", 5))
    assert keys(await events(call, 1)) == [4]
    await tick(room, 29.9)
    await room.arrive(of("b", 6))
    assert keys(await events(call, 1)) == [6]
    await tick(room, 0.1)
    assert keys(await events(call, 3)) == [1, 2, 5]
    call.cancel()


async def test_a_lease_runs_out_unless_it_is_extended(room: Room) -> None:
    await room.arrive(of("a", 1), of("b", 2))
    call = await opened(room, lease=Duration(seconds=10))
    slow, kept = await events(call, 2)
    await tick(room, 8)
    await call.write(ReceiveRequest(extensions=ReceiveExtensions(event_ids=[kept.event_id])))
    await until_read(call)
    await room.arrive(of("c", 3))
    await events(call, 1)
    await tick(room, 2)
    (again,) = await events(call, 1)
    assert (again.event_id, again.attempt) == (slow.event_id, 2)
    longer = ReceiveExtensions(event_ids=[kept.event_id], lease=Duration(seconds=100))
    await call.write(ReceiveRequest(extensions=longer))
    await acknowledge(call, again)
    await until_read(call)
    await tick(room, 50)
    assert keys(await events(call, 1)) == [3]
    call.cancel()


async def test_a_late_acknowledgement_is_taken(room: Room) -> None:
    await room.arrive(of("a", 1))
    call = await opened(room, lease=Duration(seconds=1), window=1)
    (event,) = await events(call, 1)
    await acknowledge(call, event)
    await until_rows(room, 0)
    await room.arrive(of("a", 2))
    (late,) = await events(call, 1)
    other = await opened(room, lease=Duration(seconds=10))
    await tick(room, 1)
    await acknowledge(call, late)
    await until_rows(room, 0)
    call.cancel()
    other.cancel()


async def test_streams_share_a_number_and_a_conversation_has_one(room: Room) -> None:
    one, two = await opened(room, window=2), await opened(room, window=2)
    for call in (one, two):
        assert (await call.read()).HasField("caught_up")
    await room.arrive(*[of(user, n) for n, user in enumerate("aabbcc")])
    first, second = await events(one, 2), await events(two, 2)
    users = [{event.status.user_id for event in given} for given in (first, second)]
    assert [len(found) for found in users] == [1, 1]
    assert users[0] != users[1]
    await acknowledge(one, *first)
    assert keys(await events(one, 2)) == [4, 5]
    one.cancel()
    await acknowledge(two, *second)
    again = await events(two, 2)
    assert (keys(again), [event.attempt for event in again]) == ([4, 5], [2, 1])
    two.cancel()


async def test_an_orderly_end_charges_nothing_and_gives_to_others_at_once(room: Room) -> None:
    await room.arrive(of("a", 1))
    one = await opened(room)
    (event,) = await events(one, 1)
    two = await opened(room)
    await one.done_writing()
    assert (await one.read()).HasField("caught_up")
    await ends_well(one)
    (again,) = await events(two, 1)
    assert (again.event_id, again.attempt, again.redelivered) == (event.event_id, 1, True)
    two.cancel()


async def test_poison_becomes_a_dead_letter_and_its_conversation_goes_on(room: Room) -> None:
    await room.receptions.set_policy(ACCOUNT, Policy(max_attempts=2))
    await room.arrive(of("a", 1), of("a", 2))
    call = await opened(room)
    poison, good = await events(call, 2)
    await nack(call, poison)
    poison, good = await events(call, 2)
    await nack(call, poison)
    (good,) = await events(call, 1)
    assert (keys([good]), good.attempt) == ([2], 1)
    await acknowledge(call, good)
    await until_rows(room, 0)
    assert await room.store.count(DEAD_LETTERS) == 1
    assert room.receptions.counters.dead_letters == 1
    call.cancel()


async def test_a_consumer_that_dies_of_an_event_ends_that_event(room: Room) -> None:
    await room.receptions.set_policy(ACCOUNT, Policy(max_attempts=3))
    await room.arrive(of("a", 1), of("a", 2))
    for attempt in (1, 2, 3):
        call = await opened(room)
        given = await events(call, 2)
        assert [(key, event.attempt) for key, event in zip(keys(given), given, strict=True)] == [
            (1, attempt),
            (2, 1),
        ]
        call.cancel()
        await until_closed(room)
    call = await opened(room)
    assert keys(await events(call, 1)) == [2]
    call.cancel()


async def test_a_full_disk_delays_a_dead_letter_and_loses_nothing(room: Room) -> None:
    await room.receptions.set_policy(ACCOUNT, Policy(max_attempts=1))
    await room.arrive(of("a", 1), of("a", 2))
    call = await opened(room)
    poison, _ = await events(call, 2)
    room.store.full = True
    await nack(call, poison)
    (good,) = await events(call, 1)
    assert await room.store.count(DEAD_LETTERS) == 0
    room.store.full = False
    await acknowledge(call, good)
    await until_rows(room, 0)
    assert await room.store.count(DEAD_LETTERS) == 1
    call.cancel()


async def test_bytes_bound_what_is_out(room: Room) -> None:
    await room.arrive(*[of(chr(97 + n), n) for n in range(6)])
    call = await opened(room, window_bytes=of("a", 0).ByteSize() + 1)
    given = await events(call, 2)
    await settle()
    (open_call,) = room.messaging._calls
    assert open_call._consumer.used == 2
    await acknowledge(call, given[0])
    assert len(await events(call, 1)) == 1
    call.cancel()


async def test_draining_ends_with_a_last_nack(room: Room) -> None:
    await room.arrive(of("a", 1))
    call = await opened(room)
    given = await events(call, 1)
    assert (await call.read()).HasField("caught_up")
    draining = asyncio.create_task(room.messaging.drain(50.0))
    assert (await call.read()).HasField("draining")
    await nack(call, *given)
    assert (await call.read()).HasField("nacked")
    await ends_well(call)
    await draining
    assert await room.store.count(INBOX) == 1


async def test_the_lease_in_force_is_told(room: Room) -> None:
    for asked, told in ((None, 60), (Duration(seconds=5), 5)):
        call = room.receive()
        await call.write(ReceiveRequest(open=ReceiveOpen(business_number=NUMBER, lease=asked)))
        assert (await call.read()).opened.lease.seconds == told
        call.cancel()


@pytest.mark.parametrize(
    ("opening", "field"),
    [
        ({"lease": Duration(nanos=999_999_999)}, "open.lease"),
        ({"lease": Duration(seconds=601)}, "open.lease"),
        ({"lease": Duration(seconds=5, nanos=-1)}, "open.lease"),
        ({"consumer": "x" * 65}, "open.consumer"),
        ({"consumer": "ü"}, "open.consumer"),
        ({"consumer": "a\nb"}, "open.consumer"),
    ],
)
async def test_a_bad_opening(room: Room, opening: dict[str, object], field: str) -> None:
    call = room.receive()
    await call.write(ReceiveRequest(open=ReceiveOpen(business_number=NUMBER, **opening)))
    code, reason, metadata = await fault(call)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert metadata["field"] == field
    assert "limit" in metadata
    await until_closed(room)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ReceiveRequest(nacks=ReceiveNacks()), "nacks.event_ids"),
        (ReceiveRequest(nacks=ReceiveNacks(event_ids=["1.0"] * 10_001)), "nacks.event_ids"),
        (
            ReceiveRequest(nacks=ReceiveNacks(event_ids=["1.0"], delay=Duration(seconds=601))),
            "nacks.delay",
        ),
        (
            ReceiveRequest(nacks=ReceiveNacks(event_ids=["1.0"], delay=Duration(seconds=-1))),
            "nacks.delay",
        ),
        (ReceiveRequest(extensions=ReceiveExtensions()), "extensions.event_ids"),
        (
            ReceiveRequest(
                extensions=ReceiveExtensions(event_ids=["1.0"], lease=Duration(seconds=0))
            ),
            "extensions.lease",
        ),
    ],
)
async def test_a_bad_frame_of_nacks_or_extensions(
    room: Room, request_: ReceiveRequest, field: str
) -> None:
    call = await opened(room)
    await call.write(request_)
    code, reason, metadata = await fault(call)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert metadata["field"] == field


async def test_ids_that_are_not_leased_to_the_stream_change_nothing(room: Room) -> None:
    await room.arrive(of("a", 1))
    one, two = await opened(room), await opened(room)
    (event,) = await events(one, 1)
    await nack(two, event)
    await two.write(ReceiveRequest(extensions=ReceiveExtensions(event_ids=[event.event_id, "x"])))
    await two.done_writing()
    await ends_well_after_caught_up(two)
    (item,) = (await room.receptions.of(ACCOUNT)).leases._items.values()
    assert item.failures == 0
    one.cancel()


async def ends_well_after_caught_up(call) -> None:
    while (await call.read()) is not grpc.aio.EOF:
        pass
    assert await call.code() is grpc.StatusCode.OK


async def test_a_store_that_fails_once_does_not_stop_later_readers(room: Room) -> None:
    await room.arrive(of("a", 1))
    scan = room.store.scan

    async def full(*_: object, **__: object):
        raise StoreFull("no space left", retry_after_ms=1_000)

    room.store.scan = full
    call = await opened(room)
    code, _, _ = await fault(call)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    room.store.scan = scan
    again = await opened(room)
    assert keys(await events(again, 1)) == [1]
    again.cancel()


def test_failures_have_the_contract_s_values() -> None:
    for failure in Failure:
        assert AttemptFailure.Name(failure.value) == f"ATTEMPT_FAILURE_{failure.name}"
