"""Sends many messages over a Send stream that is opened again as often as it is lost.

Drives a SendWindow (sending.py): the pump admits messages from the caller's iterable, the writer
takes batches, the reader answers. Nothing is forgotten before it is answered, and what is written
again keeps its key. This module does not look into messages.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Self

import grpc.aio

from letterlock.business.outgoing import OutgoingMessage, SendResult, to_result
from letterlock.business.sending import MAX_BATCH_MESSAGES, SendWindow
from letterlock.closing import Closing
from letterlock.errors import LetterlockError
from letterlock.reconnect import (
    Sleep,
    opening_answer,
    read_and_write,
    run_until_done,
    stream_opened,
)
from letterlock.retry import Backoff
from letterlock.v1 import messaging_pb2

SendCall = grpc.aio.StreamStreamCall[messaging_pb2.SendRequest, messaging_pb2.SendResponse]
Messages = Iterable[OutgoingMessage] | AsyncIterable[OutgoingMessage]


class SendStream(Closing):
    """Async iterator over the results, one for each message, in the order of their arrival.

    Results and unanswered messages together never exceed the window: a caller that stops taking
    results stops the sending. Use it with `async with`, or iterate it to its end.
    """

    def __init__(
        self,
        open_call: Callable[[], SendCall],
        business_number: str,
        messages: Messages,
        *,
        window: int,
        backoff: Backoff,
        sleep: Sleep,
    ) -> None:
        """`window`: how many messages may be in hand; the gateway's own bound applies too."""
        self._open_call = open_call
        self._number = business_number
        self._messages = messages
        self._window = SendWindow(window)
        self._wanted_window = window
        self._backoff = backoff
        self._sleep = sleep
        self._max_batch = MAX_BATCH_MESSAGES
        self._results: deque[SendResult] = deque()
        self._to_write = asyncio.Event()
        self._to_read = asyncio.Event()
        self._room = asyncio.Event()
        self._source_done = False
        self._draining = False
        self._failure: BaseException | None = None
        self._runner: asyncio.Task[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SendResult:
        """The next result. Raises the LetterlockError that ended the sending, or what the
        caller's iterable raised (after the results of what it had given)."""
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="letterlock-send")
        while not self._results:
            if self._runner.done():
                await self._end()
            self._to_read.clear()
            await self._to_read.wait()
        self._room.set()
        return self._results.popleft()

    async def aclose(self) -> None:
        """Stop. Messages without an answer may or may not have been accepted: sending them again
        under their keys is safe."""
        if self._runner is not None and not self._runner.done():
            self._runner.cancel()
            await asyncio.wait([self._runner])

    async def _end(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        raise StopAsyncIteration

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                pump = tasks.create_task(self._pump())
                try:
                    await run_until_done(self._attempt, self._backoff, self._sleep)
                except LetterlockError as error:
                    self._failure = error
                finally:
                    pump.cancel()
        finally:
            # After the task is done, so that a waiting iterator finds it done.
            asyncio.get_running_loop().call_soon(self._to_read.set)

    async def _pump(self) -> None:
        try:
            async for message in _each(self._messages):
                while self._in_hand() >= self._window.limit:
                    self._room.clear()
                    await self._room.wait()
                self._admit(message)
        except Exception as error:  # the caller's own iterable: given back at the end
            self._failure = error
        self._source_done = True
        self._to_write.set()

    def _in_hand(self) -> int:
        return len(self._window) + len(self._results)

    def _admit(self, message: OutgoingMessage) -> None:
        try:
            self._window.admit(message.to_proto())
        except LetterlockError as error:
            self._results.append(SendResult(message.idempotency_key, error=error))
            self._to_read.set()
        else:
            self._to_write.set()

    @property
    def _is_finished(self) -> bool:
        return self._source_done and not len(self._window)

    async def _attempt(self) -> bool:
        self._window.lost()
        self._draining = False
        call = self._open_call()
        opening = messaging_pb2.SendOpen(business_number=self._number)
        self._note_opening(await opening_answer(call, messaging_pb2.SendRequest(open=opening)))
        await read_and_write(call, lambda: self._read(call), lambda: self._write(call))
        return self._is_finished

    def _note_opening(self, opened: messaging_pb2.SendOpened) -> None:
        self._max_batch = opened.max_batch_messages or MAX_BATCH_MESSAGES
        self._window.limit = min(self._wanted_window, opened.max_unanswered or self._wanted_window)

    async def _write(self, call: SendCall) -> None:
        while not (self._draining or self._is_finished):
            batch = self._window.take(self._max_batch)
            if batch:
                frame = messaging_pb2.SendBatch(messages=batch)
                await call.write(messaging_pb2.SendRequest(batch=frame))
                continue
            self._to_write.clear()
            await self._to_write.wait()
        await call.done_writing()

    async def _read(self, call: SendCall) -> None:
        while True:
            frame = await call.read()
            if not isinstance(frame, messaging_pb2.SendResponse):
                return
            if frame.HasField("results"):
                self._take_in(frame.results)
            elif frame.HasField("draining"):
                self._draining = True
                self._to_write.set()

    def _take_in(self, results: messaging_pb2.SendResults) -> None:
        stream_opened(self._backoff)
        for answer in results.results:
            if self._window.answer(answer):
                self._results.append(to_result(answer))
        self._to_read.set()
        if self._is_finished:
            self._to_write.set()


async def _each(messages: Messages) -> AsyncIterator[OutgoingMessage]:
    if isinstance(messages, AsyncIterable):
        async for message in messages:
            yield message
    else:
        for message in messages:
            yield message
