"""One open Send stream: carries out on gRPC what `letterlockd.streams.send` decides.

    reader: frame ─▶ machine ─▶ validate ─▶ Outbound.submit (waits: back-pressure)
    writer: answers ─▶ frames of at most 256 ─▶ context.write (waits: flow control) ─▶ machine

A message counts as answered when its answer is written, not when it is known. So a caller that
never reads its answers reaches the unanswered bound and is read no more: it costs that bound. No
task and no future exists for a message, and answers wait as the bytes that will be written: a
thousand small messages of protobuf cost more to keep and to copy. Knows nothing of how a message
is sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from letterlock.v1 import messaging_pb2
from letterlock.v1.messaging_pb2 import SendRequest, SendResponse, SendResult

from letterlockd.limits import (
    MAX_BATCH_MESSAGES,
    MAX_FRAME_RESULTS,
    MAX_TEXT_BYTES,
    MAX_UNANSWERED,
)
from letterlockd.model.ids import MessageId
from letterlockd.model.sender import Sender
from letterlockd.model.varint import varint
from letterlockd.rpc.validate import check_batch, sort_messages
from letterlockd.streams import send

__all__ = ["Outbound", "SendCall", "SenderOf"]

_RESULTS_TAG = b"\x12"  # SendResponse.results: field 2, length-delimited
_RESULT_TAG = b"\x0a"  # SendResults.results: field 1, length-delimited

_Context: TypeAlias = "grpc.aio.ServicerContext[SendRequest, bytes]"

SenderOf = Callable[[str], Awaitable[Sender]]
"""A business number → the sender that the caller may act as; raises `LetterlockError`."""


class Outbound(Protocol):
    """The gateway's outgoing side."""

    async def submit(
        self,
        sender: Sender,
        messages: Sequence[messaging_pb2.OutgoingMessage],
        answer: Callable[[list[SendResult]], None],
    ) -> None:
        """Take in valid messages; waits while the queue is full. `answer` is called on the loop,
        each message answered exactly once, after its commit."""
        ...

    async def message(
        self, sender: Sender, *, message_id: MessageId | None, idempotency_key: str | None
    ) -> messaging_pb2.Message:
        """The state of one message; raises `NotFound`. Exactly one key is given."""
        ...


class SendCall:
    """Run once by `run`, which returns when the stream is to end with OK."""

    def __init__(self, context: _Context, sender_of: SenderOf, outbound: Outbound) -> None:
        self._context = context
        self._sender_of = sender_of
        self._outbound = outbound
        self._stream = send.SendStream()
        self._frames: deque[bytes] = deque()  # opened and draining: two at most
        self._results: deque[bytes] = deque()  # bounded by the machine's unanswered
        self._attention = asyncio.Event()
        self._reading = asyncio.Event()
        self._drain_grace_s = 0.0

    async def run(self) -> None:
        """Serve the stream. Raises `LetterlockError`, alone or in a group."""
        self._reading.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read())
                await self._write()
                reader.cancel()
        finally:
            self._stream, _ = send.step(self._stream, send.Lost())

    def drain(self, grace_s: float) -> None:
        """The process is about to stop."""
        self._drain_grace_s = grace_s
        self._apply(send.DrainOrdered())

    async def _read(self) -> None:
        request = await self._frame()
        if request is None or not await self._open(request):
            return
        business_number = request.open.business_number
        while (request := await self._frame()) is not None:
            await self._take_in(business_number, request)

    async def _frame(self) -> SendRequest | None:
        """The next frame, once there is room for it; None when the caller sends no more."""
        await self._reading.wait()
        request = await self._context.read()
        if isinstance(request, SendRequest):
            return request
        self._apply(send.HalfClosed())  # grpc.aio.EOF
        return None

    async def _open(self, request: SendRequest) -> bool:
        """Whether the opening frame names a number of the caller's; False: the stream ends."""
        if send.SayOpened() not in self._apply(_frame_event(request)):
            return False
        await self._sender_of(request.open.business_number)
        self._say(SendResponse(opened=_OPENED))
        return True

    async def _take_in(self, business_number: str, request: SendRequest) -> None:
        for action in self._apply(_frame_event(request)):
            if isinstance(action, send.TakeIn):
                sender = await self._sender_of(business_number)
                valid, refused = sort_messages(request.batch.messages, sender.retention_ms)
                if refused:
                    self._answer(refused)
                if valid:
                    await self._outbound.submit(sender, valid, self._answer)

    def _answer(self, results: list[SendResult]) -> None:
        if self._stream.state is not send.SendState.CLOSED:
            self._results.extend([result.SerializeToString() for result in results])
            self._attention.set()

    async def _write(self) -> None:
        """Write until the machine closes the stream."""
        while True:
            while self._frames:
                await self._context.write(self._frames.popleft())
            if self._stream.state is send.SendState.CLOSED:
                return
            if self._results:
                await self._write_results()
            else:
                self._attention.clear()
                await self._attention.wait()

    async def _write_results(self) -> None:
        count = min(len(self._results), MAX_FRAME_RESULTS)
        parts: list[bytes] = []
        for _ in range(count):
            result = self._results.popleft()
            parts += (_RESULT_TAG, varint(len(result)), result)
        body = b"".join(parts)
        await self._context.write(b"".join((_RESULTS_TAG, varint(len(body)), body)))
        self._apply(send.Answered(count))

    def _apply(self, event: send.Event) -> tuple[send.Action, ...]:
        self._stream, actions = send.step(self._stream, event)
        for action in actions:
            if isinstance(action, send.StopReading):
                self._reading.clear()
            elif isinstance(action, send.StartReading):
                self._reading.set()
            elif isinstance(action, send.SayDraining):
                self._reading.clear()
                self._say(SendResponse(draining=draining(self._drain_grace_s)))
            elif isinstance(action, send.Finish):
                self._attention.set()
        return actions

    def _say(self, frame: SendResponse) -> None:
        self._frames.append(frame.SerializeToString())
        self._attention.set()


_OPENED = messaging_pb2.SendOpened(
    max_batch_messages=MAX_BATCH_MESSAGES,
    max_content_bytes=MAX_TEXT_BYTES,
    max_unanswered=MAX_UNANSWERED,
)


def draining(grace_s: float) -> messaging_pb2.Draining:
    """The frame that tells a caller to connect again."""
    seconds = int(grace_s)
    nanos = int((grace_s - seconds) * 1_000_000_000)
    return messaging_pb2.Draining(grace=Duration(seconds=seconds, nanos=nanos))


def _frame_event(request: SendRequest) -> send.Event:
    kind = request.WhichOneof("frame")
    if kind == "batch":
        return send.BatchFrame(check_batch(request.batch))
    return send.OpenFrame() if kind == "open" else send.UnknownFrame()
