"""The business client against an in-process gateway that is told where to cut."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import grpc
import pytest
from letterlock.business.client import BusinessClient
from letterlock.business.events import Event
from letterlock.business.outgoing import OutgoingMessage, SendResult, new_idempotency_key
from letterlock.errors import (
    Busy,
    InvalidRequest,
    LetterlockError,
    NotFound,
    Replaced,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownRecipient,
)
from letterlock.v1 import errors_pb2, messaging_pb2

from tests.harness.fakes_sdk import (
    NUMBER,
    TOKEN,
    FakeGateway,
    ReceivePlan,
    SendPlan,
    serving,
)

USER = "+4915112345679"


class Waits(list[float]):
    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def client(gateway: FakeGateway, waits: Waits) -> AsyncIterator[BusinessClient]:
    async with (
        serving(gateway) as target,
        BusinessClient(target, TOKEN, number=NUMBER, insecure=True, sleep=waits) as client,
    ):
        yield client


def outgoing(count: int) -> list[OutgoingMessage]:
    return [OutgoingMessage(USER, f"text {i}", idempotency_key=f"k{i}") for i in range(count)]


async def collect(stream: AsyncIterator[SendResult]) -> dict[str, SendResult]:
    return {result.idempotency_key: result async for result in stream}


async def test_send_one(client: BusinessClient, gateway: FakeGateway) -> None:
    accepted = await client.send(to=USER, text="hello", idempotency_key="k")
    assert accepted.message_id == "id-k"
    assert gateway.messages["k"].phone_number == USER
    assert gateway.messages["k"].content.text.body == "hello"
    assert (await client.message(idempotency_key="k")).message_id == "id-k"


async def test_user_ids_are_not_taken_for_numbers(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    await client.send(to="f" * 32, text="hello", idempotency_key="k")
    assert gateway.messages["k"].user_id == "f" * 32


async def test_send_repeats_under_the_same_key_when_the_outcome_is_unknown(
    client: BusinessClient, gateway: FakeGateway, waits: Waits
) -> None:
    gateway.failures.append((grpc.StatusCode.UNAVAILABLE, "DRAINING", None))
    accepted = await client.send(to=USER, text="hello")
    assert accepted.repeated
    assert list(gateway.written.values()) == [2]
    assert len(waits) == 1


async def test_send_waits_as_long_as_it_is_told(
    client: BusinessClient, gateway: FakeGateway, waits: Waits
) -> None:
    gateway.failures.append((grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", 700))
    await client.send(to=USER, text="hello")
    assert waits[0] >= 0.7


async def test_send_gives_up_after_some_attempts(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.failures.extend([(grpc.StatusCode.UNAVAILABLE, "RELAY_UNAVAILABLE", None)] * 5)
    with pytest.raises(Unavailable) as failed:
        await client.send(to=USER, text="hello")
    assert failed.value.reason == "RELAY_UNAVAILABLE"


async def test_bad_input_is_told_once_with_field_and_limit(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.failures.append((grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", None))
    with pytest.raises(InvalidRequest) as failed:
        await client.send(to=USER, text="hello")
    assert (failed.value.field, failed.value.limit) == ("message.x", "7")
    assert list(gateway.written.values()) == [1]


async def test_an_unknown_message_is_not_found(client: BusinessClient) -> None:
    with pytest.raises(NotFound):
        await client.message("id-none")


CALLS = {
    "send": lambda client: client.send(to=USER, text="x"),
    "send_many": lambda client: collect(client.send_many(outgoing(1))),
    "receive": lambda client: anext(client.receive()),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_wrong_token_is_told_at_once(
    gateway: FakeGateway, call: Callable[[BusinessClient], Awaitable[object]], waits: Waits
) -> None:
    async with (
        serving(gateway) as target,
        BusinessClient(target, "other", number=NUMBER, insecure=True, sleep=waits) as client,
    ):
        with pytest.raises(Unauthenticated):
            await call(client)
    # gRPC drops the status when it comes while the opening frame is being written; the stream is
    # then opened once more, and that answer counts.
    assert len(waits) <= 1


async def test_no_gateway_is_unavailable(waits: Waits) -> None:
    async with BusinessClient(
        "127.0.0.1:1", TOKEN, number=NUMBER, insecure=True, sleep=waits
    ) as client:
        with pytest.raises(Unavailable):
            await client.send(to=USER, text="x")
    assert len(waits) == 4


async def test_send_many_answers_each(client: BusinessClient, gateway: FakeGateway) -> None:
    results = await collect(client.send_many(outgoing(200)))
    assert len(results) == 200
    assert all(r.accepted is not None for r in results.values())
    assert list(gateway.messages) == [f"k{i}" for i in range(200)]
    assert gateway.most_unanswered <= 16


async def test_send_many_takes_an_async_iterable(client: BusinessClient) -> None:
    async def messages() -> AsyncIterator[OutgoingMessage]:
        for message in outgoing(5):
            yield message

    async with client.send_many(messages()) as stream:
        assert len(await collect(stream)) == 5


@pytest.mark.parametrize(
    "plan",
    [
        SendPlan(opens=False),
        SendPlan(),
        SendPlan(takes=3),
        SendPlan(takes=3, answers=2),
        SendPlan(takes=40, answers=40),
    ],
    ids=["before opening", "after opening", "taken, unanswered", "half answered", "all answered"],
)
async def test_a_lost_stream_loses_and_doubles_nothing(
    client: BusinessClient, gateway: FakeGateway, plan: SendPlan
) -> None:
    gateway.send_plans.extend([plan, plan])
    results = await collect(client.send_many(outgoing(40)))
    assert len(results) == 40
    assert all(r.accepted is not None for r in results.values())
    # The same keys all the way: the gateway knows 40 messages, in the order they were given.
    assert list(gateway.messages) == [f"k{i}" for i in range(40)]


async def test_what_was_answered_is_not_written_again(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.send_plans.append(SendPlan(takes=3, answers=2))
    await collect(client.send_many(outgoing(10)))
    assert gateway.written["k0"] == gateway.written["k1"] == 1
    assert gateway.written["k2"] == 2


async def test_draining_moves_on(client: BusinessClient, gateway: FakeGateway) -> None:
    gateway.send_plans.append(SendPlan(takes=1, answers=1, drains=True))
    results = await collect(client.send_many(outgoing(60)))
    assert len(results) == 60
    assert all(r.accepted is not None for r in results.values())
    assert gateway.sends == 2


async def test_send_many_holds_its_window(client: BusinessClient, gateway: FakeGateway) -> None:
    gateway.answering.clear()
    taken: list[OutgoingMessage] = []
    eleven = asyncio.Event()

    def messages() -> Iterator[OutgoingMessage]:
        for message in outgoing(100):
            taken.append(message)
            if len(taken) == 11:
                eleven.set()
            yield message

    async with client.send_many(messages(), window=10) as stream:
        first = asyncio.ensure_future(anext(stream))
        await eleven.wait()
        await gateway.until(lambda: gateway.holding)
        assert len(taken) == 11  # ten in hand, one waiting to be admitted
        gateway.answering.set()
        await first
        assert len(await collect(stream)) == 99


async def test_one_bad_message_leaves_the_others_alone(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.refusals["k1"] = errors_pb2.Refusal(
        reason=errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT,
        scope=errors_pb2.REFUSAL_SCOPE_RECIPIENT,
    )
    gateway.refusals["k2"] = errors_pb2.Refusal(reason=errors_pb2.ERROR_REASON_QUEUE_FULL)
    gateway.refusals["k2"].retry_after.FromMilliseconds(1500)
    messages = [
        *outgoing(4),
        OutgoingMessage(USER, "x" * 300_000, idempotency_key="large"),
        OutgoingMessage(USER, idempotency_key="empty"),
        OutgoingMessage(USER, "x", idempotency_key="k" * 65),
    ]
    results = await collect(client.send_many(messages))
    assert results["k0"].accepted
    assert results["k3"].accepted
    assert isinstance(results["k1"].error, UnknownRecipient)
    assert results["k1"].error.scope == "RECIPIENT"
    assert isinstance(results["k2"].error, Busy)
    assert results["k2"].error.retry_after == 1.5
    assert isinstance(results["large"].error, TooLarge)
    assert isinstance(results["empty"].error, InvalidRequest)
    assert isinstance(results["k" * 65].error, InvalidRequest)
    assert "large" not in gateway.written


async def test_a_failing_source_is_told_after_its_results(client: BusinessClient) -> None:
    def messages() -> Iterator[OutgoingMessage]:
        yield from outgoing(3)
        raise RuntimeError("source broke")

    stream = client.send_many(messages())
    assert [(await anext(stream)).idempotency_key for _ in range(3)] == ["k0", "k1", "k2"]
    with pytest.raises(RuntimeError, match="source broke"):
        await anext(stream)


async def test_leaving_a_stream_early_leaves_no_task(client: BusinessClient) -> None:
    async with client.send_many(outgoing(50)) as stream:
        await anext(stream)
    await client.aclose()
    assert [t for t in asyncio.all_tasks() if (t.get_name() or "").startswith("letterlock")] == []


async def test_receive_and_ack(client: BusinessClient, gateway: FakeGateway) -> None:
    gateway.write(*(f"text {i}" for i in range(30)))
    async with client.receive(window=10) as events:
        for i in range(30):
            event = await anext(events)
            assert (event.kind, event.text) == ("message", f"text {i}")
            event.ack()
        await events.caught_up.wait()
    assert gateway.acked == [f"e{i}" for i in range(30)]
    assert not gateway.inbox
    assert gateway.ack_frames < 30


async def test_unacknowledged_events_come_to_the_next_stream(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.write("a", "b")
    async with client.receive() as events:
        (await anext(events)).ack()
        await anext(events)
    async with client.receive() as events:
        event = await anext(events)
        assert (event.text, event.redelivered) == ("b", True)


async def test_the_window_bounds_what_is_in_hand(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.write(*"abcdef")
    async with client.receive(window=2) as events:
        first = await anext(events)
        await anext(events)
        assert sum(gateway.given.values()) == 2
        first.ack()
        assert (await anext(events)).text == "c"
        assert sum(gateway.given.values()) == 3


@pytest.mark.parametrize(
    "plan",
    [ReceivePlan(gives=0), ReceivePlan(gives=3), ReceivePlan(gives=3, acks=1)],
    ids=["before events", "events given", "some acked"],
)
async def test_a_lost_receive_stream_resumes_without_doubles(
    client: BusinessClient, gateway: FakeGateway, plan: ReceivePlan
) -> None:
    gateway.write(*(f"t{i}" for i in range(8)))
    gateway.receive_plans.extend([plan, plan])
    seen = []
    async with client.receive() as events:
        while len(seen) < 8:
            event = await anext(events)
            seen.append(event.text)
            event.ack()
    assert seen == [f"t{i}" for i in range(8)]
    assert not gateway.inbox
    assert gateway.receives == 3


async def test_an_event_in_hand_is_not_given_twice_but_its_ack_counts(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.write("a")
    gateway.receive_plans.append(ReceivePlan(gives=1))
    async with client.receive() as events:
        held = await anext(events)
        await gateway.until(lambda: gateway.given["e0"] == 2)
        gateway.write("b")
        assert (await anext(events)).text == "b"
        held.ack()
        held.ack()
    assert gateway.acked == ["e0"]


async def test_receive_moves_on_when_draining(client: BusinessClient, gateway: FakeGateway) -> None:
    gateway.write("a", "b")
    gateway.receive_plans.append(ReceivePlan(gives=1, drains=True))
    async with client.receive() as events:
        for text in "ab":
            event = await anext(events)
            assert event.text == text
            event.ack()
    assert gateway.acked == ["e0", "e1"]
    assert gateway.receives == 2


async def test_a_nacked_event_comes_again_before_those_behind_it(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.write("a", "b", "c")
    seen = []
    async with client.receive() as events:
        first = await anext(events)
        await gateway.until(lambda: gateway.given["e2"] == 1)
        first.nack(delay=2.5)
        first.nack()  # once is enough
        for _ in range(3):
            event = await anext(events)
            seen.append((event.text, event.redelivered))
            event.ack()
        first.ack()  # it is not in hand any more under this lease: harmless
    assert seen == [("a", True), ("b", True), ("c", True)]
    assert gateway.nacked == [("e0", 2.5)]
    assert gateway.acked == ["e0", "e1", "e2"]


async def test_what_is_on_its_way_when_an_event_is_nacked_comes_behind_it(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.write("a")
    gateway.nacking.clear()
    seen = []
    async with client.receive() as events:
        first = await anext(events)
        first.nack()
        gateway.write("b", "c")
        await gateway.until(lambda: gateway.given["e2"] == 1)  # before the nack is carried out
        gateway.nacking.set()
        for _ in range(3):
            event = await anext(events)
            seen.append((event.text, event.redelivered))
            event.ack()
    assert seen == [("a", True), ("b", True), ("c", True)]
    assert gateway.acked == ["e0", "e1", "e2"]
    assert not gateway.extended


async def test_leases_renew_themselves_while_an_event_is_in_hand(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.lease_ms = 60
    gateway.write("a")
    async with client.receive() as events:
        event = await anext(events)
        await gateway.until(lambda: gateway.extended["e0"] >= 3)
        event.ack()
    assert gateway.acked == ["e0"]


async def test_extending_says_for_how_long(client: BusinessClient, gateway: FakeGateway) -> None:
    gateway.write("a")
    async with client.receive() as events:
        event = await anext(events)
        event.extend(300)
        await gateway.until(lambda: gateway.extended["e0"] == 1)
        for bad in (lambda: event.extend(0.5), lambda: event.extend(601), lambda: event.nack(-1)):
            with pytest.raises(InvalidRequest):
                bad()


async def test_a_stream_keeps_its_name_over_reconnects(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    gateway.write("a", "b")
    gateway.receive_plans.append(ReceivePlan(gives=1))
    async with client.receive(lease=5, window_bytes=1_000) as events:
        for _ in range(2):
            (await anext(events)).ack()
    async with client.receive(consumer="only one") as events:
        await events.caught_up.wait()
    first, again, other = gateway.openings
    assert first.consumer == again.consumer != other.consumer == "only one"
    assert (first.lease.seconds, first.window_bytes) == (5, 1_000)


async def test_replaced_is_raised_and_not_fought(
    client: BusinessClient, gateway: FakeGateway
) -> None:
    async with client.receive() as events:
        await events.caught_up.wait()
        gateway.replaced.set()
        gateway.news.set()
        with pytest.raises(Replaced):
            await anext(events)
        with pytest.raises(Replaced):
            await anext(events)
    assert gateway.receives == 1


@pytest.mark.parametrize("window", [0, 10_001])
async def test_windows_out_of_range_are_refused(client: BusinessClient, window: int) -> None:
    with pytest.raises(InvalidRequest):
        client.receive(window=window)
    with pytest.raises(InvalidRequest):
        client.send_many([], window=window)


NO_TIMES = [-1.0, math.nan, math.inf, 1e300]


@pytest.mark.parametrize("seconds", NO_TIMES)
async def test_unusable_times_are_refused_by_name(client: BusinessClient, seconds: float) -> None:
    with pytest.raises(InvalidRequest) as failed:
        await client.send(to=USER, text="x", time_to_live=seconds)
    assert (failed.value.field, failed.value.limit) == ("time_to_live", "0 to 315576000000 s")
    with pytest.raises(InvalidRequest) as failed:
        client.receive(lease=seconds)
    assert (failed.value.field, failed.value.limit) == ("lease", "1 to 600 s")
    with pytest.raises(InvalidRequest) as failed:
        await client.inbox.set_policy(keep_acknowledged=seconds)
    assert failed.value.field == "keep_acknowledged"
    event = Event(messaging_pb2.Event(), client)  # type: ignore[arg-type]  # is refused before
    for refused, field in ((event.nack, "delay"), (event.extend, "seconds")):
        with pytest.raises(InvalidRequest) as failed:
            refused(seconds)
        assert failed.value.field == field


@pytest.mark.parametrize("hold", [-1.0, math.nan])
async def test_an_unusable_hold_is_refused(client: BusinessClient, hold: float) -> None:
    with pytest.raises(InvalidRequest) as failed:
        client.receive(hold=hold)
    assert failed.value.field == "hold"


@pytest.mark.parametrize("attempts", [-1, 0, 1_001, 99_999_999_999])
async def test_attempts_out_of_range_are_refused(client: BusinessClient, attempts: int) -> None:
    with pytest.raises(InvalidRequest) as failed:
        await client.inbox.set_policy(max_attempts=attempts)
    assert (failed.value.field, failed.value.limit) == ("max_attempts", "1 to 1000")


async def test_a_client_outside_its_context_says_so() -> None:
    client = BusinessClient("127.0.0.1:1", TOKEN, number=NUMBER, insecure=True)
    with pytest.raises(LetterlockError, match="not connected"):
        await client.send(to=USER, text="x")


def test_tokens_that_no_header_can_hold_are_refused_unseen() -> None:
    with pytest.raises(InvalidRequest) as failed:
        BusinessClient("127.0.0.1:1", "geheim\n", number=NUMBER)
    assert "geheim" not in str(failed.value)


def test_messages_do_not_show_what_they_say() -> None:
    message = OutgoingMessage(USER, "secret words", caller_tag=b"tag")
    assert "secret" not in repr(message)
    assert USER not in repr(message)


def test_new_idempotency_keys_begin_with_the_time() -> None:
    before_ms = time.time_ns() // 1_000_000
    keys = [new_idempotency_key() for _ in range(256)]
    after_ms = time.time_ns() // 1_000_000
    assert len(set(keys)) == 256
    assert {len(key) for key in keys} == {32}
    assert all(before_ms <= int(key[:12], 16) <= after_ms for key in keys)
