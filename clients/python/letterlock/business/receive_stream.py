"""Receives events over a Receive stream that is opened again as often as it is lost.

Drives an AckWindow (receiving.py): the reader offers events to it, the caller's acks and nacks go
through it to the writer, which also renews the leases of what is in hand.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Self

import grpc.aio

from letterlock.business.events import Event
from letterlock.business.receiving import AckWindow
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

ReceiveCall = grpc.aio.StreamStreamCall[messaging_pb2.ReceiveRequest, messaging_pb2.ReceiveResponse]

RENEW_SHARE = 1 / 3
"""Share of a lease after which it is renewed: two more tries before it runs out."""

CLOSE_SECONDS = 5.0
"""How long closing waits for the gateway to take the last acks."""


class ReceiveStream(Closing):
    """Async iterator over events; use it with `async with`, so that the last acks get out.

    At most `window` events are in the caller's hands; their leases are renewed for `hold` seconds
    each. After a nack, events of the same user that the caller does not have yet come behind the
    nacked one. Iteration ends by `aclose()`, or raises the
    LetterlockError that no reconnecting can mend (Replaced, Unauthenticated, Forbidden, ...).
    """

    def __init__(
        self,
        open_call: Callable[[], ReceiveCall],
        opening: messaging_pb2.ReceiveOpen,
        *,
        hold: float,
        backoff: Backoff,
        sleep: Sleep,
    ) -> None:
        self.caught_up = asyncio.Event()
        """Set when everything that waited at the opening has been given."""
        self._open_call = open_call
        self._opening = opening
        self._backoff = backoff
        self._sleep = sleep
        self._acks = AckWindow(opening.window, hold)
        self._events: deque[Event] = deque()
        self._to_write = asyncio.Event()
        self._to_read = asyncio.Event()
        self._connected = False
        self._lease = 0.0
        self._closing = False
        self._draining = False
        self._failure: LetterlockError | None = None
        self._runner: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._start()
        return self

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
        opened = await opening_answer(call, messaging_pb2.ReceiveRequest(open=self._opening))
        stream_opened(self._backoff)
        self._connected = True
        self._lease = opened.lease.ToNanoseconds() / 1e9
        try:
            await read_and_write(call, lambda: self._read(call), lambda: self._write(call))
        finally:
            self._connected = False
            self._acks.lost()
        return self._closing

    async def _read(self, call: ReceiveCall) -> None:
        while True:
            frame = await call.read()
            if not isinstance(frame, messaging_pb2.ReceiveResponse):
                return
            if frame.HasField("events"):
                self._take_in(frame.events)
            elif frame.HasField("nacked"):
                self._acks.answered(frame.nacked.event_ids)
            elif frame.HasField("caught_up"):
                self.caught_up.set()
                self._to_read.set()
            elif frame.HasField("draining"):
                # The gateway still takes acks and ends the stream when its grace is over; the
                # writer moves on sooner when nothing is in hand.
                self._draining = True
                self._to_write.set()

    def _take_in(self, events: messaging_pb2.Events) -> None:
        now = asyncio.get_running_loop().time()
        for proto in events.events:
            event = Event(proto, self)
            if self._acks.offer(event.event_id, event.user_id, now):
                self._events.append(event)
        self._to_read.set()
        self._to_write.set()

    def ack(self, event: Event) -> None:
        """See `Event.ack`."""
        self._acks.ack(event.event_id)
        self._to_write.set()

    def nack(self, event: Event, delay: float) -> None:
        """See `Event.nack`."""
        if not self._acks.nack(event.event_id, event.user_id, delay):
            return
        # They come again behind it: handed out now, they would come before it.
        behind = [later for later in self._events if later.user_id == event.user_id]
        for later in behind:
            self._acks.let_go(later.event_id)
            self._events.remove(later)
        self._to_write.set()

    def extend(self, event: Event, seconds: float) -> None:
        """See `Event.extend`."""
        self._acks.extend(event.event_id, seconds, asyncio.get_running_loop().time())
        self._to_write.set()

    async def _write(self, call: ReceiveCall) -> None:
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            if self._lease and loop.time() >= renewed + self._lease * RENEW_SHARE:
                renewed = loop.time()
                self._acks.renew(renewed, self._lease)
            if (frame := self._acks.take()) is not None:
                await call.write(frame)
                continue
            if self._closing or (self._draining and self._acks.is_idle):
                await call.done_writing()
                return
            self._to_write.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease * RENEW_SHARE or None):
                    await self._to_write.wait()
