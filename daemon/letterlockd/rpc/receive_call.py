"""One open Receive stream: carries out on gRPC what `letterlockd.streams.receive` decides.

    writer:    lease events ─▶ open them ─▶ frame ─▶ context.write (flow control)
    reader:    frame of acks, nacks, extensions ─▶ leases ─▶ what waits for commit
    committer: everything that waits ─▶ one commit ─▶ room in the window ─▶ writer

Each frame of nacks is answered in the order of the stream: what was given before its leases ended
is written before the answer, what is given after that behind it.

In memory are one frame, a few answers to nacks, and of what is out a few hundred bytes for each
event: a caller that never reads or never acknowledges costs that. An event is leased before its
frame leaves, and its room comes back only when its acknowledgement is committed; a lost stream
therefore loses nothing. Which of a number's streams gets which event is its `Reception`'s; events
come opened from `letterlockd.gateway.handover`, and no seal is known here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc
from letterlock.v1 import messaging_pb2
from letterlock.v1.messaging_pb2 import ReceiveRequest, ReceiveResponse

from letterlockd.errors import BrokenInvariant, Conflict
from letterlockd.gateway.handover import Handover
from letterlockd.gateway.reception import Reception, Receptions
from letterlockd.limits import GONE_WAIT_S, MAX_UNWRITTEN_FRAMES
from letterlockd.model.ids import AccountId
from letterlockd.rpc.send_call import SenderOf, draining
from letterlockd.rpc.validate import (
    check_consumer,
    check_event_ids,
    check_extension,
    check_nack_delay,
    check_receive_open,
)
from letterlockd.streams import receive
from letterlockd.streams.held import Consumer, Item

__all__ = ["Claim", "ReceiveCall"]

_Context: TypeAlias = "grpc.aio.ServicerContext[ReceiveRequest, ReceiveResponse]"

Claim = Callable[[AccountId, str, "ReceiveCall"], Awaitable[None]]
"""Makes a call the one receiver of its name at its number."""


def _nothing() -> None:
    """There is nothing to end yet."""


class ReceiveCall:
    """Run once by `run`, which returns when the stream is to end with OK.

    `claim` makes this call the one of its consumer; it waits for an older one to let go.
    """

    def __init__(
        self,
        context: _Context,
        sender_of: SenderOf,
        claim: Claim,
        receptions: Receptions,
        handover: Handover,
    ) -> None:
        self._context = context
        self._sender_of = sender_of
        self._claim = claim
        self._receptions = receptions
        self._handover = handover
        self.name: tuple[AccountId, str] | None = None  # of a consumer that has one
        self._reception: Reception | None = None  # until the stream is open
        self._consumer = Consumer(0, 0, 0, 0)
        self._stream = receive.ReceiveStream()
        self._frames: deque[ReceiveResponse] = deque()  # all but events; the reader waits for room
        self._written = asyncio.Event()
        self._settled: list[Item] = []  # bounded by the window
        self._attention = asyncio.Event()
        self._to_commit = asyncio.Event()
        self._closed = asyncio.Event()
        self.released = asyncio.Event()
        self._replaced = False
        self._half_closed = False
        self._drain_grace_s = 0.0
        self._unlisten: Callable[[], None] = _nothing
        self._grace: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Serve the stream. Raises `LetterlockError`, alone or in a group."""
        lost = True
        try:
            await self._serve()
            if self._half_closed and self._consumer.leased:
                # gRPC gives the end of a connection as a half-close first, and then cancels.
                await asyncio.sleep(GONE_WAIT_S)
            lost = False
        finally:
            self._stream, _ = receive.step(self._stream, receive.Lost())
            self._unlisten()
            if self._reception is not None:
                self._reception.detach(self._consumer, self._settled, lost=lost)
            if self._grace is not None:
                self._grace.cancel()
            self.released.set()
        if self._replaced:
            raise Conflict("a newer stream of this consumer receives", reason="REPLACED")

    def replace(self) -> None:
        """A newer stream of the same name takes over; `released` tells when this one is done."""
        self._apply(receive.Replaced())

    def drain(self, grace_s: float) -> None:
        """The process is about to stop."""
        self._drain_grace_s = grace_s
        self._apply(receive.DrainOrdered())
        self._finish_when_empty()

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(self._read())
            writer = tasks.create_task(self._write())
            tasks.create_task(self._commit())
            await self._closed.wait()
            reader.cancel()
            if self._replaced:
                writer.cancel()  # it may wait for a connection that is dead without knowing

    async def _read(self) -> None:
        if (request := await self._frame()) is not None:
            await self._open(request)
        while (request := await self._frame()) is not None:
            if receive.TakeIn() in self._apply(_frame_event(request)):
                self._take_in(request)
            while len(self._frames) > MAX_UNWRITTEN_FRAMES:  # a caller that nacks and never reads
                self._written.clear()
                await self._written.wait()

    async def _frame(self) -> ReceiveRequest | None:
        """The next frame; None when the caller sends no more."""
        request = await self._context.read()
        if isinstance(request, ReceiveRequest):
            return request
        self._half_closed = True  # grpc.aio.EOF
        self._apply(receive.HalfClosed())
        return None

    async def _open(self, request: ReceiveRequest) -> None:
        if request.WhichOneof("frame") != "open":
            self._apply(_frame_event(request))  # raises: only `open` may come first
            return
        opening = request.open
        window, window_bytes, lease_ms = check_receive_open(opening)
        consumer = check_consumer(opening.consumer)
        sender = await self._sender_of(opening.business_number)
        account = sender.account_id
        reception = await self._receptions.of(account)
        if consumer:
            self.name = (account, consumer)
            await self._claim(account, consumer, self)
        backlog_end = self._receptions.inbox.horizon(account)
        new_only = opening.start == messaging_pb2.RECEIVE_START_NEW
        start = backlog_end if new_only else 0
        self._consumer = Consumer(window, window_bytes, lease_ms, start)
        self._apply(receive.OpenFrame(backlog_end))
        if not self._stream.gives:
            return  # it ended while it waited for an older one
        self._unlisten = reception.attach(self._consumer, self._wake)
        self._reception = reception
        self._wake()

    def _take_in(self, request: ReceiveRequest) -> None:
        reception, consumer = self._attached, self._consumer
        kind = request.WhichOneof("frame")
        if kind == "acks":
            self._settled += reception.leases.settle(check_event_ids(request.acks, kind))
            self._to_commit.set()
        elif kind == "nacks":
            delay_ms = check_nack_delay(request.nacks)
            event_ids = check_event_ids(request.nacks, kind)
            reception.nack(consumer, event_ids, delay_ms)
            self._say(ReceiveResponse(nacked=messaging_pb2.ReceiveNacked(event_ids=event_ids)))
            self._finish_when_empty()
        elif kind == "extensions":
            lease_ms = check_extension(request.extensions)
            reception.extend(consumer, check_event_ids(request.extensions, kind), lease_ms)

    async def _commit(self) -> None:
        """Commit acknowledgements in groups: what came while the last group was on its way."""
        while True:
            self._to_commit.clear()
            if self._reception is not None and (self._settled or self._reception.leases.has_dying):
                settled, self._settled = self._settled, []
                await self._reception.commit(settled)
                self._finish_when_empty()
            elif self._closed.is_set():
                return
            else:
                await self._to_commit.wait()

    async def _write(self) -> None:
        """Write until the machine closes the stream."""
        while True:
            self._attention.clear()
            while self._frames:
                await self._context.write(self._frames.popleft())
                self._written.set()
            if self._closed.is_set():
                return
            if not await self._progress():
                await self._attention.wait()

    async def _progress(self) -> bool:
        """Give or read something; False when there is nothing until somebody wakes us."""
        reception = self._reception
        if reception is None or not self._stream.gives:
            return bool(self._frames)
        if items := reception.take(self._consumer):
            await self._give(reception, items)
        elif not await reception.fill(self._consumer):
            self._apply(receive.Reached(reception.leases.caught_up_to(self._consumer)))
            return bool(self._frames)
        return True

    async def _give(self, reception: Reception, items: list[Item]) -> None:
        response = ReceiveResponse()
        try:
            await reception.content(items)
            given, gone = await self._handover.open(reception.account, items, response.events)
        except BaseException:
            reception.leases.put_back(items)
            raise
        if not self._stream.gives or any(item.consumer is not self._consumer for item in items):
            reception.leases.put_back(items)  # ended while the events were opened: they stay
            self._finish_when_empty()
            return
        if gone:
            self._settled += reception.leases.drop(gone)
            self._to_commit.set()
        if given:
            reception.leases.gave(given)
            await self._context.write(response)

    @property
    def _attached(self) -> Reception:
        if self._reception is None:
            raise BrokenInvariant("the stream is not open")
        return self._reception

    def _wake(self) -> None:
        self._attention.set()
        if self._reception is not None and self._reception.leases.has_dying:
            self._to_commit.set()

    def _finish_when_empty(self) -> None:
        if self._stream.state is receive.ReceiveState.DRAINING and not self._consumer.used:
            self._apply(receive.Emptied())

    def _apply(self, event: receive.Event) -> tuple[receive.Action, ...]:
        self._stream, actions = receive.step(self._stream, event)
        for action in actions:
            self._do(action)
        return actions

    def _do(self, action: receive.Action) -> None:
        match action:
            case receive.SayOpened():
                self._say(ReceiveResponse(opened=_opened(self._consumer)))
            case receive.SayCaughtUp():
                self._say(ReceiveResponse(caught_up=messaging_pb2.CaughtUp()))
            case receive.SayDraining():
                self._say(ReceiveResponse(draining=draining(self._drain_grace_s)))
                self._start_grace()
            case receive.RefuseReplaced():
                self._replaced = True
                self._end()
            case receive.Finish():
                self._end()
            case receive.TakeIn():
                pass  # the reader's: it holds the frame

    def _say(self, frame: ReceiveResponse) -> None:
        self._frames.append(frame)
        self._attention.set()

    def _start_grace(self) -> None:
        loop = asyncio.get_running_loop()
        self._grace = loop.call_later(self._drain_grace_s, self._grace_over)

    def _grace_over(self) -> None:
        self._apply(receive.GraceOver())

    def _end(self) -> None:
        self._closed.set()
        self._attention.set()
        self._to_commit.set()


def _opened(consumer: Consumer) -> messaging_pb2.ReceiveOpened:
    opened = messaging_pb2.ReceiveOpened(window=consumer.window)
    opened.lease.FromMilliseconds(consumer.lease_ms)
    return opened


def _frame_event(request: ReceiveRequest) -> receive.Event:
    kind = request.WhichOneof("frame")
    return _FRAME_EVENTS[kind] if kind in _FRAME_EVENTS else receive.UnknownFrame()


_FRAME_EVENTS: dict[str | None, receive.Event] = {
    "open": receive.OpenFrame(0),
    "acks": receive.AcksFrame(),
    "nacks": receive.NacksFrame(),
    "extensions": receive.ExtensionsFrame(),
}
