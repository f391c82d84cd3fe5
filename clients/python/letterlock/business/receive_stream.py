"""Receives events over a Receive stream that is opened again as often as it is lost.

Drives an AckWindow (receiving.py): the reader offers events to it, the caller's acks go through it
to the writer, in batches. This module does not look into events.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import grpc.aio

from letterlock.business.events import Event
from letterlock.business.receiving import AckWindow
from letterlock.errors import LetterlockError, ServerError
from letterlock.reconnect import Sleep, first_answer, read_and_write, run_until_done
from letterlock.retry import Backoff
from letterlock.v1 import messaging_pb2

ReceiveCall = grpc.aio.StreamStreamCall[messaging_pb2.ReceiveRequest, messaging_pb2.ReceiveResponse]

CLOSE_SECONDS = 5.0
"""How long closing waits for the gateway to take the last acks."""


class ReceiveStream:
    """Async iterator over events; use it with `async with`, so that the last acks get out.

    At most `window` events are in the caller's hands. Iteration ends by `aclose()`, or raises the
    LetterlockError that no reconnecting can mend (Replaced, Unauthenticated, Forbidden, ...).
    """

    def __init__(
        self,
        open_call: Callable[[], ReceiveCall],
        opening: messaging_pb2.ReceiveOpen,
        *,
        backoff: Backoff,
        sleep: Sleep,
    ) -> None:
        self.caught_up = asyncio.Event()
        """Set when everything that waited at the opening has been given."""
        self._open_call = open_call
        self._opening = opening
        self._backoff = backoff
        self._sleep = sleep
        self._acks = AckWindow(opening.window)
        self._events: deque[Event] = deque()
        self._to_write = asyncio.Event()
        self._to_read = asyncio.Event()
        self._connected = False
        self._closing = False
        self._draining = False
        self._failure: LetterlockError | None = None
        self._runner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        runner = self._start()
        while not self._events:
            if self._failure is not None:
                raise self._failure
            if self._closing or runner.done():
                raise StopAsyncIteration
            self._to_read.clear()
            await self._to_read.wait()
        return self._events.popleft()

    async def until_caught_up(self) -> AsyncIterator[Event]:
        """The events that waited when the stream was opened; ends after the last of them."""
        runner = self._start()
        while True:
            while self._events:
                yield self._events.popleft()
            if self._failure is not None:
                raise self._failure
            if self.caught_up.is_set() or runner.done():
                return
            self._to_read.clear()
            await self._to_read.wait()

    async def aclose(self) -> None:
        """Write the acks given so far, wait for the gateway to take them, and stop."""
        self._closing = True
        self._to_write.set()
        self._to_read.set()
        if self._runner is None:
            return
        if not self._connected:
            self._runner.cancel()  # acks that are left have nobody to take them now
        done, _ = await asyncio.wait([self._runner], timeout=CLOSE_SECONDS)
        if not done:
            self._runner.cancel()
            await asyncio.wait([self._runner])

    def _start(self) -> asyncio.Task[None]:
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="letterlock-receive")
        return self._runner

    async def _run(self) -> None:
        try:
            await run_until_done(self._attempt, self._backoff, self._sleep)
        except LetterlockError as error:
            self._failure = error
        finally:
            asyncio.get_running_loop().call_soon(self._to_read.set)

    async def _attempt(self) -> bool:
        self._draining = False
        call = self._open_call()
        frame = await first_answer(call, messaging_pb2.ReceiveRequest(open=self._opening))
        if not isinstance(frame, messaging_pb2.ReceiveResponse) or not frame.HasField("opened"):
            call.cancel()
            raise ServerError("the stream did not begin with its opening answer")
        self._backoff.succeeded()
        self._connected = True
        try:
            await read_and_write(call, lambda: self._read(call), lambda: self._write(call))
        finally:
            self._connected = False
        return self._closing

    async def _read(self, call: ReceiveCall) -> None:
        while True:
            frame = await call.read()
            if not isinstance(frame, messaging_pb2.ReceiveResponse):
                return
            if frame.HasField("events"):
                self._take_in(frame.events)
            elif frame.HasField("caught_up"):
                self.caught_up.set()
                self._to_read.set()
            elif frame.HasField("draining"):
                # The gateway still takes acks and ends the stream when its grace is over; the
                # writer moves on sooner when nothing is in hand.
                self._draining = True
                self._to_write.set()

    def _take_in(self, events: messaging_pb2.Events) -> None:
        for event in events.events:
            if self._acks.offer(event.event_id):
                self._events.append(Event(event, self._ack))
        self._to_read.set()
        self._to_write.set()

    def _ack(self, event_id: str) -> None:
        self._acks.ack(event_id)
        self._to_write.set()

    async def _write(self, call: ReceiveCall) -> None:
        while True:
            if ids := self._acks.take():
                acks = messaging_pb2.ReceiveAcks(event_ids=ids)
                await call.write(messaging_pb2.ReceiveRequest(acks=acks))
                continue
            if self._closing or (self._draining and self._acks.is_idle):
                await call.done_writing()
                return
            self._to_write.clear()
            await self._to_write.wait()
