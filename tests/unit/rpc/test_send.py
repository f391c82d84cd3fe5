"""Send, SendMessage and GetMessage over a real server on loopback."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from letterlock.content.v1 import content_pb2
from letterlock.v1 import errors_pb2, messaging_pb2
from letterlock.v1.messaging_pb2 import SendBatch, SendOpen, SendRequest
from letterlockd.limits import MAX_UNANSWERED, PAUSE_UNANSWERED

from tests.harness.clock import settle
from tests.harness.messaging import NUMBER, TOKEN, Room, messaging_room, text_message

OPEN = SendRequest(open=SendOpen(business_number=NUMBER))


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with messaging_room() as room:
        yield room


async def opened(room: Room):
    call = room.send()
    await call.write(OPEN)
    answer = await call.read()
    assert answer.opened.max_unanswered == MAX_UNANSWERED
    return call


def batch(*messages: messaging_pb2.OutgoingMessage) -> SendRequest:
    return SendRequest(batch=SendBatch(messages=messages))


def texts(count: int, start: int = 0) -> list[messaging_pb2.OutgoingMessage]:
    return [text_message(f"key-{number}") for number in range(start, start + count)]


async def results(call, count: int) -> list[messaging_pb2.SendResult]:
    found: list[messaging_pb2.SendResult] = []
    while len(found) < count:
        frame = await call.read()
        assert frame is not grpc.aio.EOF
        found += frame.results.results
    return found


def reason_of(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str]]:
    status = rpc_status.from_call(error)
    assert status is not None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason, dict(info.metadata)
    raise AssertionError("no ErrorInfo")


async def fault(call) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """How the stream ends when it is read to its end."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_to_end(call)
    reason, metadata = reason_of(caught.value)
    return caught.value.code(), reason, metadata


async def read_to_end(call) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def ends_well(call) -> None:
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_each_message_is_answered_once_in_frames_of_at_most_256(room: Room) -> None:
    call = await opened(room)
    room.outbound.holding = True
    await call.write(batch(*texts(256)))
    await call.write(batch(*texts(256, 256)))
    await room.outbound.until_seen(512)
    room.outbound.release()
    frames = [await call.read(), await call.read()]
    assert [len(frame.results.results) for frame in frames] == [256, 256]
    keys = [result.idempotency_key for frame in frames for result in frame.results.results]
    assert keys == [f"key-{number}" for number in range(512)]
    await call.done_writing()
    await ends_well(call)
    assert [message.idempotency_key for message in room.outbound.seen] == keys


async def test_a_bad_message_is_refused_alone(room: Room) -> None:
    call = await opened(room)
    await call.write(batch(text_message("good"), text_message("bad", ""), text_message("too")))
    answers = {result.idempotency_key: result for result in await results(call, 3)}
    assert {key for key, result in answers.items() if result.HasField("accepted")} == {
        "good",
        "too",
    }
    refused = answers["bad"].refused
    assert refused.reason == errors_pb2.ERROR_REASON_INVALID_FIELD
    assert refused.scope == errors_pb2.REFUSAL_SCOPE_MESSAGE
    assert refused.field == "content.text.body"
    assert "16384" in refused.limit
    call.cancel()


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (batch(text_message("first")), "UNEXPECTED_FRAME", "batch"),
        (SendRequest(), "UNEXPECTED_FRAME", "frame"),
    ],
)
async def test_the_first_frame_must_open(
    room: Room, request_: SendRequest, reason: str, field: str
) -> None:
    call = room.send()
    await call.write(request_)
    code, found, metadata = await fault(call)
    assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert metadata["field"] == field
    assert room.outbound.seen == []


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (OPEN, "UNEXPECTED_FRAME"),
        (SendRequest(), "UNEXPECTED_FRAME"),
        (SendRequest(batch=SendBatch()), "INVALID_FIELD"),
        (batch(*texts(257)), "TOO_LARGE"),
        (batch(*[text_message(f"k{n}", "x" * 16_400) for n in range(256)]), "TOO_LARGE"),
    ],
)
async def test_a_frame_against_the_rules_ends_the_stream(
    room: Room, request_: SendRequest, reason: str
) -> None:
    call = await opened(room)
    await call.write(request_)
    code, found, _ = await fault(call)
    assert (code, found) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert room.outbound.seen == []


async def test_a_number_of_another_business_is_not_opened(room: Room) -> None:
    call = room.send()
    await call.write(SendRequest(open=SendOpen(business_number="+4915100000000")))
    code, reason, _ = await fault(call)
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")


async def test_half_close_answers_what_is_open_and_ends_well(room: Room) -> None:
    call = await opened(room)
    room.outbound.holding = True
    await call.write(batch(*texts(3)))
    await call.done_writing()
    await room.outbound.until_seen(3)
    room.outbound.release()
    assert len(await results(call, 3)) == 3
    await ends_well(call)


async def test_a_stream_that_never_opens_ends_well(room: Room) -> None:
    call = room.send()
    await call.done_writing()
    await ends_well(call)


async def test_reading_stops_at_the_unanswered_bound_and_goes_on(room: Room) -> None:
    call = await opened(room)
    room.outbound.holding = True
    frames = MAX_UNANSWERED // 256 + 4

    async def write_all() -> None:
        for frame in range(frames):
            await call.write(batch(*texts(256, 256 * frame)))
        await call.done_writing()

    writing = asyncio.create_task(write_all())
    await room.outbound.until_seen(PAUSE_UNANSWERED)
    await settle()
    assert PAUSE_UNANSWERED <= len(room.outbound.seen) <= MAX_UNANSWERED
    room.outbound.release()
    answers = await results(call, frames * 256)
    await writing
    assert len({result.idempotency_key for result in answers}) == frames * 256
    await ends_well(call)


async def test_a_caller_that_never_reads_is_read_no_more(room: Room) -> None:
    """Answers count as unanswered until they are written: so memory is bounded by the window."""
    call = await opened(room)
    sent = 0
    blocked = False
    while sent < 400_000 and not blocked:
        writing = asyncio.ensure_future(call.write(batch(*texts(256, sent))))
        done, _ = await asyncio.wait({writing}, timeout=1)
        blocked = not done
        sent += 256
    assert blocked
    (open_call,) = room.messaging._calls
    assert open_call._stream.unanswered.used <= MAX_UNANSWERED
    assert len(open_call._results) <= MAX_UNANSWERED
    call.cancel()


async def test_draining_answers_what_was_taken_in_and_ends_well(room: Room) -> None:
    call = await opened(room)
    room.outbound.holding = True
    await call.write(batch(*texts(2)))
    await room.outbound.until_seen(2)
    draining = asyncio.create_task(room.messaging.drain(50.0))
    frame = await call.read()
    assert frame.draining.grace.seconds == 40
    await call.write(batch(*texts(2, 2)))
    room.outbound.release()
    assert len(await results(call, 2)) == 2
    await ends_well(call)
    await draining
    assert len(room.outbound.seen) == 2


async def test_draining_waits_no_longer_than_its_grace(room: Room) -> None:
    call = await opened(room)
    room.outbound.holding = True
    await call.write(batch(*texts(2)))
    await room.outbound.until_seen(2)
    await room.messaging.drain(0.0)
    assert room.messaging.open_streams == 1
    call.cancel()


async def test_a_draining_process_takes_no_new_calls(room: Room) -> None:
    await room.messaging.drain(5.0)
    code, reason, _ = await fault(room.send())
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def test_a_changed_retention_holds_on_open_streams(room: Room) -> None:
    call = await opened(room)
    message = text_message("long")
    message.time_to_live.FromMilliseconds(room.registry.retention_ms)
    await call.write(batch(message))
    (before,) = await results(call, 1)
    assert before.HasField("accepted")
    room.registry.retention_ms -= 1
    await call.write(batch(message))
    (after,) = await results(call, 1)
    assert after.refused.field == "time_to_live"
    assert len(room.registry.removals) == 1
    call.cancel()


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


async def test_a_stream_ends_at_its_deadline(room: Room) -> None:
    call = room.stub.Send(metadata=TOKEN, timeout=0.05)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_to_end(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await until_closed(room)


async def test_answers_after_a_cancel_go_nowhere(room: Room) -> None:
    call = await opened(room)
    room.outbound.holding = True
    await call.write(batch(*texts(2)))
    await room.outbound.until_seen(2)
    call.cancel()
    await until_closed(room)
    room.outbound.release()
    again = await opened(room)
    await again.write(batch(*texts(2)))
    assert len(await results(again, 2)) == 2
    again.cancel()


async def until_closed(room: Room) -> None:
    async with asyncio.timeout(10):
        while room.messaging.open_streams:  # noqa: ASYNC110
            await asyncio.sleep(0)


def one(number: str = NUMBER, **message: object) -> messaging_pb2.SendMessageRequest:
    return messaging_pb2.SendMessageRequest(
        business_number=number, message=text_message("key", **message)
    )


async def test_one_message_is_accepted(room: Room) -> None:
    answer = await room.stub.SendMessage(one(), metadata=TOKEN)
    assert answer.accepted.message_id == "0" * 32


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (one("+4915100000000"), grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN"),
        (
            messaging_pb2.SendMessageRequest(business_number=NUMBER),
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELD",
        ),
        (one(phone_number="123"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PHONE_NUMBER"),
        (
            one(time_to_live=Duration(seconds=-1)),
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELD",
        ),
    ],
)
async def test_one_bad_message_is_a_status(
    room: Room, request_: messaging_pb2.SendMessageRequest, code: grpc.StatusCode, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.stub.SendMessage(request_, metadata=TOKEN)
    assert caught.value.code() is code
    assert reason_of(caught.value)[0] == reason


async def test_a_refusal_of_one_message_is_a_status_with_its_retry_time(room: Room) -> None:
    async def refuse(sender, messages, answer) -> None:
        refusal = errors_pb2.Refusal(
            reason=errors_pb2.ERROR_REASON_QUEUE_FULL,
            detail="the queue is full",
            retry_after=Duration(seconds=2),
        )
        answer([messaging_pb2.SendResult(idempotency_key="key", refused=refusal)])

    room.outbound.submit = refuse
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.stub.SendMessage(one(), metadata=TOKEN)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(caught.value)
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.seconds == 2


async def test_a_deadline_that_passes_is_the_callers_answer(room: Room) -> None:
    room.outbound.holding = True
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.stub.SendMessage(one(), metadata=TOKEN, timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    room.outbound.release()  # its late answer meets nobody


async def test_a_message_is_found_by_its_key(room: Room) -> None:
    await room.stub.SendMessage(one(), metadata=TOKEN)
    request = messaging_pb2.GetMessageRequest(business_number=NUMBER, idempotency_key="key")
    found = await room.stub.GetMessage(request, metadata=TOKEN)
    assert found.idempotency_key == "key"


@pytest.mark.parametrize(
    ("key", "code", "reason"),
    [
        ({}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        ({"message_id": "XYZ"}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        ({"idempotency_key": ""}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
        ({"message_id": "0" * 32}, grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
    ],
)
async def test_a_bad_or_unknown_name_of_a_message(
    room: Room, key: dict[str, str], code: grpc.StatusCode, reason: str
) -> None:
    request = messaging_pb2.GetMessageRequest(business_number=NUMBER, **key)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await room.stub.GetMessage(request, metadata=TOKEN)
    assert caught.value.code() is code
    assert reason_of(caught.value)[0] == reason


async def test_media_is_not_sent(room: Room) -> None:
    message = text_message("key")
    message.content.CopyFrom(content_pb2.Content(media=content_pb2.Media()))
    call = await opened(room)
    await call.write(batch(message))
    (result,) = await results(call, 1)
    assert result.refused.reason == errors_pb2.ERROR_REASON_UNSUPPORTED_CONTENT
    call.cancel()
