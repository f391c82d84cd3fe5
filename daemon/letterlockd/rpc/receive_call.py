"""One open Receive stream: carries out on gRPC what `letterlockd.streams.receive` decides.

    writer:    inbox page ─▶ opened events ─▶ ledger ─▶ frame ─▶ context.write (flow control)
    reader:    frame of acks ─▶ ledger ─▶ what waits for commit
    committer: everything that waits ─▶ one commit ─▶ room in the window ─▶ writer

In memory are one page of the inbox, one frame, and a ledger of at most a window: a caller that
never reads or never acknowledges costs that. An event enters the ledger before its frame leaves,
and its room comes back only when its acknowledgement is committed; a lost stream therefore loses
nothing. Knows no seal: events come opened from `letterlockd.gateway.handover`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import TypeAlias

import grpc
from letterlock.v1 import messaging_pb2
from letterlock.v1.messaging_pb2 import ReceiveRequest, ReceiveResponse

from letterlockd.errors import Conflict
from letterlockd.gateway.handover import Handover
from letterlockd.gateway.inbox import Inbox, Waiting
from letterlockd.limits import MAX_FRAME_BYTES, MAX_FRAME_RESULTS, READ_ROWS
from letterlockd.model.ids import AccountId
from letterlockd.rpc.send_call import SenderOf, draining
from letterlockd.rpc.validate import check_acks, check_window
from letterlockd.streams import receive
from letterlockd.streams.ledger import Ledger, Place

__all__ = ["Claim", "ReceiveCall"]

_Context: TypeAlias = "grpc.aio.ServicerContext[ReceiveRequest, ReceiveResponse]"

Claim = Callable[[AccountId, "ReceiveCall"], Awaitable[None]]
"""Makes a call the one receiver of its number."""


def _nothing() -> None:
    """There is nothing to end yet."""


class ReceiveCall:
    """Run once by `run`, which returns when the stream is to end with OK.

    `claim` makes this call the receiver of its number; it waits for an older one to let go.
    """

    def __init__(
        self,
        context: _Context,
        sender_of: SenderOf,
        claim: Claim,
        inbox: Inbox,
        handover: Handover,
    ) -> None:
        self._context = context
        self._sender_of = sender_of
        self._claim = claim
        self._inbox = inbox
        self._handover = handover
        self.account = AccountId(b"")  # until the stream is open
        self._stream = receive.ReceiveStream()
        self._ledger = Ledger()
        self._frames: deque[ReceiveResponse] = deque()  # opened, caught up, draining: three at most
        self._page: deque[Waiting] = deque()  # at most one page of the inbox
        self._next = 0
        self._first_given: Place | None = None
        self._acked: list[Place] = []  # bounded by the window
        self._gone: list[Place] = []  # bounded by the pages read while one commit is on its way
        self._attention = asyncio.Event()
        self._to_commit = asyncio.Event()
        self._closed = asyncio.Event()
        self.released = asyncio.Event()
        self._replaced = False
        self._drain_grace_s = 0.0
        self._unlisten: Callable[[], None] = _nothing
        self._grace: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Serve the stream. Raises `LetterlockError`, alone or in a group."""
        try:
            await self._serve()
        finally:
            self._stream, _ = receive.step(self._stream, receive.Lost())
            self._unlisten()
            if self._grace is not None:
                self._grace.cancel()
            self.released.set()
        if self._replaced:
            raise Conflict("a newer stream receives for this number", reason="REPLACED")

    def replace(self) -> None:
        """A newer stream of the same number takes over; `released` tells when this one is done."""
        self._apply(receive.Replaced())

    def drain(self, grace_s: float) -> None:
        """The process is about to stop."""
        self._drain_grace_s = grace_s
        self._apply(receive.DrainOrdered())

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
            if receive.TakeAcks() in self._apply(_frame_event(request)):
                self._acked += self._ledger.take(check_acks(request.acks))
                self._to_commit.set()

    async def _frame(self) -> ReceiveRequest | None:
        """The next frame; None when the caller sends no more."""
        request = await self._context.read()
        if isinstance(request, ReceiveRequest):
            return request
        self._apply(receive.HalfClosed())  # grpc.aio.EOF
        return None

    async def _open(self, request: ReceiveRequest) -> None:
        if request.WhichOneof("frame") != "open":
            self._apply(_frame_event(request))  # raises: only `open` may come first
            return
        opening = request.open
        window = check_window(opening)
        sender = await self._sender_of(opening.business_number)
        self.account = sender.account_id
        await self._claim(self.account, self)
        self._unlisten = self._inbox.listen(self.account, self._attention.set)
        new_only = opening.start == messaging_pb2.RECEIVE_START_NEW
        backlog_end = self._inbox.horizon(self.account)
        self._apply(receive.OpenFrame(window, new_only, backlog_end))
        self._apply(receive.Reached(self._next))

    async def _commit(self) -> None:
        """Commit acknowledgements in groups: what came while the last group was on its way."""
        while True:
            self._to_commit.clear()
            if self._acked or self._gone:
                acked, gone = self._acked, self._gone
                self._acked, self._gone = [], []
                await self._inbox.acknowledge(self.account, acked + gone)
                self._apply(receive.Acked(len(acked)))
                self._attention.set()
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
            if self._closed.is_set():
                return
            if self._stream.room == 0 or not await self._progress():
                await self._attention.wait()

    async def _progress(self) -> bool:
        """Give or read something; False when there is nothing until the inbox wakes us."""
        if self._page:
            await self._give()
        elif self._next < self._inbox.horizon(self.account):
            page = await self._inbox.read(self.account, self._next, limit=READ_ROWS)
            self._page.extend(page.waiting)
            self._next = page.reached
        else:
            return False
        if not self._page:
            self._apply(receive.Reached(self._next))
        return True

    async def _give(self) -> None:
        response = ReceiveResponse()
        opened = await self._handover.open(self.account, self._next_frame(), response.events)
        given, gone = opened
        if self._stream.room < len(given):
            return  # the stream began to end while the events were opened: they stay
        for _ in range(len(given) + len(gone)):
            self._page.popleft()
        if gone:
            self._gone += [waiting.place for waiting in gone]
            self._to_commit.set()
        if given:
            self._enter(given, response.events)
            self._apply(receive.Given(len(given)))
            await self._context.write(response)

    def _next_frame(self) -> Sequence[Waiting]:
        """As many events as window and frame have room for: at least one."""
        chosen: list[Waiting] = []
        size = 0
        for waiting in islice(self._page, min(self._stream.room, MAX_FRAME_RESULTS)):
            size += len(waiting.event.inbound.sealed_payload)
            if chosen and size > MAX_FRAME_BYTES:
                break
            chosen.append(waiting)
        return chosen

    def _enter(self, given: Sequence[Waiting], frame: messaging_pb2.Events) -> None:
        """Into the ledger, before the frame leaves: an acknowledgement may come while the frame's
        write is not over."""
        before = self._inbox.given(self.account)
        for (place, _), event in zip(given, frame.events, strict=True):
            if before.holds(place):
                event.redelivered = True
            self._ledger.give(event.event_id, place)
        self._first_given = self._first_given or given[0].place
        before.add(self._first_given, given[-1].place)

    def _apply(self, event: receive.Event) -> tuple[receive.Action, ...]:
        self._stream, actions = receive.step(self._stream, event)
        for action in actions:
            self._do(action)
        return actions

    def _do(self, action: receive.Action) -> None:
        match action:
            case receive.SayOpened(window):
                self._say(ReceiveResponse(opened=messaging_pb2.ReceiveOpened(window=window)))
            case receive.StartAt(position):
                self._next = position
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
            case receive.TakeAcks():
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


def _frame_event(request: ReceiveRequest) -> receive.Event:
    kind = request.WhichOneof("frame")
    if kind == "acks":
        return receive.AcksFrame()
    return receive.OpenFrame(1, False, 0) if kind == "open" else receive.UnknownFrame()
