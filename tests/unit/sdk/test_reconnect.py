"""How a stream of the SDK begins, with its opening answer or not; what is told of outages."""

from __future__ import annotations

import logging
from typing import Any, cast

import grpc.aio
import pytest
from letterlock.errors import ServerError, Unavailable
from letterlock.reconnect import opening_answer, run_until_done, stream_opened
from letterlock.retry import Backoff, RetryPolicy
from letterlock.v1 import messaging_pb2

OPENING = messaging_pb2.SendRequest(open=messaging_pb2.SendOpen(business_number="+15550100100"))


class FakeCall:
    """A stream on which `frame` comes first."""

    def __init__(self, frame: object) -> None:
        self._frame = frame
        self.written: list[object] = []
        self.is_cancelled = False

    async def write(self, frame: object) -> None:
        self.written.append(frame)

    async def read(self) -> object:
        return self._frame

    def cancel(self) -> None:
        self.is_cancelled = True


def as_call(fake: FakeCall) -> grpc.aio.StreamStreamCall[Any, Any]:
    return cast("grpc.aio.StreamStreamCall[Any, Any]", fake)


async def test_the_opening_answer_is_given_and_the_stream_goes_on() -> None:
    opened = messaging_pb2.SendOpened(max_unanswered=7)
    call = FakeCall(messaging_pb2.SendResponse(opened=opened))
    assert await opening_answer(as_call(call), OPENING) == opened
    assert (call.written, call.is_cancelled) == ([OPENING], False)


@pytest.mark.parametrize(
    "first",
    [grpc.aio.EOF, messaging_pb2.SendResponse(results=messaging_pb2.SendResults())],
    ids=["none", "another"],
)
async def test_a_stream_that_begins_otherwise_is_given_up(first: object) -> None:
    call = FakeCall(first)
    with pytest.raises(ServerError, match="opening answer"):
        await opening_answer(as_call(call), OPENING)
    assert call.is_cancelled


async def test_an_outage_is_told_once_at_its_start_and_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="letterlock.streams")
    backoff = Backoff(RetryPolicy(), lambda: 1.0)
    streams = iter([None, "lost", None, None, None, "lost", "done"])

    async def attempt() -> bool:
        how = next(streams)
        if how is None:
            raise Unavailable("away")
        stream_opened(backoff)
        if how == "lost":
            raise Unavailable("lost")
        return True

    async def at_once(_: float) -> None:
        return

    await run_until_done(attempt, backoff, at_once)
    lost, found = "stream lost, connecting again: UNAVAILABLE: ", "stream open again"
    assert caplog.messages == [
        f"{lost}away",
        found,
        f"{lost}lost",
        found,
        f"{lost}lost",
        found,
    ]
