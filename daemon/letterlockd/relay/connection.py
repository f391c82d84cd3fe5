"""One open mailbox stream: what goes out on it, and in which order.

    answers ──────────────┐
    live items (bounded) ─┼─▶ frames() ─▶ the stream
    rows of the store ────┘

    behind ──read to the end, nothing new meanwhile──▶ live ──buffer full──▶ behind

While behind, items come from the store page by page; a commit only says that there is more. While
live, a commit hands its items over directly. Items have ascending ids in the order of their commits
(see `item_ids`), so `cursor` alone says what was passed on: nothing is skipped and nothing comes
twice. A client that does not read costs one frame and the live buffer, never more.

It does not decide who may connect, and what an acknowledgement does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from letterlock.relay.v1.mailbox_pb2 import (
    ConnectResponse,
    Opened,
    QueueEmpty,
    RelayDraining,
)

from letterlockd.clock import Clock
from letterlockd.errors import LetterlockError
from letterlockd.relay.items import Debt, deliveries_frame, read_row, results_frame
from letterlockd.relay.refused_pairs import RefusedPairs
from letterlockd.relay.tables import MAILBOXES, item_id_of, item_key, mailbox_prefix
from letterlockd.relay.wake import Wake
from letterlockd.relay.window import DeliveryWindow
from letterlockd.store.port import Store

__all__ = ["Completion", "Connection", "FrameLimits", "Outgoing", "Unacknowledged"]

_QUEUE_EMPTY = ConnectResponse(queue_empty=QueueEmpty()).SerializeToString()
_MAX_RESULTS = 1_024
_MIN_PAGE = 16

Completion = Callable[[Sequence[bytes]], Awaitable[list[bytes]]]
"""Adds to stored deliveries what is said on the way out and not kept with them."""


class Outgoing(NamedTuple):
    """An item for a mailbox. `size` is that of its row; 0: none, it dies with the stream."""

    mailbox: int
    item_id: int
    delivery: bytes
    size: int
    debt: Debt | None


class Unacknowledged(NamedTuple):
    """What is to be done when an item is acknowledged; `size` as in `Outgoing`."""

    size: int
    debt: Debt | None


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """How much one delivery frame, and the live buffer, may hold."""

    size: int
    items: int


class Connection:
    """One stream. The reading side calls everything but `frames`, which the writing side drains."""

    __slots__ = (
        "_behind",
        "_clock",
        "_complete",
        "_cursor",
        "_draining",
        "_ended",
        "_error",
        "_finishing",
        "_limits",
        "_live",
        "_live_size",
        "_missed",
        "_page",
        "_results",
        "_settled",
        "_store",
        "_told_empty",
        "_unacknowledged",
        "_wake",
        "departing",
        "device_id",
        "mailbox",
        "newer_generation",
        "refused",
        "unanswered",
        "window",
    )

    def __init__(
        self,
        mailbox: int,
        device_id: int,
        window: int,
        limits: FrameLimits,
        store: Store,
        clock: Clock,
        complete: Completion | None = None,
    ) -> None:
        self.mailbox = mailbox
        self.device_id = device_id
        self.window = DeliveryWindow(window)
        self.unanswered = 0
        self.refused = RefusedPairs()
        self.newer_generation: int | None = None
        """Set for a gateway whose store has gone back: of the newest state that is known."""
        self.departing: frozenset[int] = frozenset()
        """Items acknowledged on an earlier stream whose rows are still there: not delivered again,
        or each of the two acknowledgements would give a receipt."""
        self._limits = limits
        self._store = store
        self._clock = clock
        self._complete = complete
        self._cursor = 0
        self._behind = True
        self._missed = False
        self._page = _MIN_PAGE
        self._live: list[Outgoing] = []
        self._live_size = 0
        self._results: list[bytes] = []
        self._unacknowledged: dict[int, Unacknowledged] = {}
        self._told_empty = False
        self._draining: int | None = None
        self._finishing = False
        self._ended = False
        self._error: LetterlockError | None = None
        self._wake = Wake()
        self._settled = Wake()

    def offer(self, item: Outgoing) -> None:
        """An item was committed to this mailbox (or is not stored at all)."""
        if self._behind or item.item_id <= self._cursor:
            self._missed = True
        elif len(self._live) >= self._limits.items or self._live_size > self._limits.size:
            self._behind = self._missed = True
        else:
            self._live.append(item)
            self._live_size += len(item.delivery)
            self._cursor = item.item_id
        self._wake.set()

    def answered(self, result: bytes) -> None:
        """A submission of this stream is decided and, if it was taken, durable. `result`: a
        serialised SubmissionResult."""
        self.unanswered -= 1
        self._results.append(result)
        self._wake.set()
        self._settled.set()

    async def answers_below(self, count: int) -> None:
        """Wait until fewer than `count` submissions are undecided or their answers unwritten."""
        while self.unanswered + len(self._results) >= count and not self._ended:
            self._settled.clear()
            await self._settled.wait()

    def acknowledge(self, item_ids: Iterable[int]) -> list[tuple[int, Unacknowledged]]:
        """Those of the ids that are out on this stream, once each; they no longer are. None after
        its end: a newer stream may have delivered them again."""
        if self._ended:
            return []
        pop = self._unacknowledged.pop
        return [(id_, entry) for id_ in item_ids if (entry := pop(id_, None)) is not None]

    def made_room(self, count: int) -> None:
        """Acknowledgements of so many items are durable."""
        self.window.acknowledged(count)
        if self._live or self._catching_up():  # else there is nothing to send
            self._wake.set()

    def forgive(self, item_id: int) -> None:
        """The item died while it was out: an acknowledgement that still comes gives no receipt."""
        entry = self._unacknowledged.get(item_id)
        if entry is not None:
            self._unacknowledged[item_id] = entry._replace(debt=None)

    def drain(self, grace_ms: int) -> None:
        """Say that the relay is about to stop, then end when everything is answered."""
        if self._draining is None:
            self._draining = grace_ms
            self._wake.set()

    def finish(self) -> None:
        """The client sends nothing more: end when everything is answered."""
        self._finishing = True
        self._wake.set()

    def end(self, error: LetterlockError | None = None) -> None:
        """End the stream, for `error` if there is one. The first end counts."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake.set()
            self._settled.set()

    def raise_end(self) -> None:
        """Raise what the stream ended with, if it was an error."""
        if self._error is not None:
            raise self._error

    async def frames(self) -> AsyncIterator[bytes]:
        """Serialised `ConnectResponse`s, until the stream ends."""
        opened = Opened(window=self.window.size, newer_generation=self.newer_generation)
        yield ConnectResponse(opened=opened).SerializeToString()
        if self.newer_generation is not None:
            return  # it has to come again; nothing of this state is wanted
        said_draining = False
        while not self._ended:
            self._wake.clear()
            if self._draining is not None and not said_draining:
                said_draining = self._finishing = True
                yield _draining_frame(self._draining)
            elif self._results:
                yield self._results_frame()
            elif self._finishing:
                if not self.unanswered:
                    return
                await self._wake.wait()
            elif self._live and (room := self._room()):
                yield self._live_frame(room)
            elif self._catching_up() and (frame := await self._stored_or_empty()):
                yield frame
            else:
                await self._wake.wait()

    def _results_frame(self) -> bytes:
        results = self._results[:_MAX_RESULTS]
        del self._results[:_MAX_RESULTS]
        self._settled.set()
        return results_frame(results)

    def _room(self) -> int:
        return min(self.window.room, self._limits.items)

    def _catching_up(self) -> bool:
        """Whether there is something to send that is not live."""
        return self._behind or not self._told_empty

    async def _stored_or_empty(self) -> bytes | None:
        """A page of the store, or that there is nothing more."""
        room = self._room()
        if not room:
            return None
        if self._behind:
            return await self._stored_frame(room)
        self._told_empty = True
        return _QUEUE_EMPTY

    def _live_frame(self, room: int) -> bytes:
        live, out, size = self._live, self._unacknowledged, 0
        deliveries: list[bytes] = []
        for item in live[:room]:
            size += len(item.delivery)
            if deliveries and size > self._limits.size:
                size -= len(item.delivery)
                break
            deliveries.append(item.delivery)
            out[item.item_id] = Unacknowledged(item.size, item.debt)
        del live[: len(deliveries)]
        self._live_size -= size
        self.window.delivered(len(deliveries))
        return deliveries_frame(deliveries)

    async def _stored_frame(self, room: int) -> bytes | None:
        """The next page as a frame. None: the window is open and there was nothing to send, or
        all of the page was past its time."""
        self._missed = False
        limit = min(room, self._page)
        rows = await self._store.scan(
            MAILBOXES,
            prefix=mailbox_prefix(self.mailbox),
            after=item_key(self.mailbox, self._cursor),
            limit=limit,
        )
        now_ms, size = self._clock.now_ms(), 0
        out: list[bytes] = []
        for key, record in rows:
            size += len(record.value)
            if out and size > self._limits.size:
                self._page = max(_MIN_PAGE, limit // 2)
                break
            self._cursor = item_id = item_id_of(key)
            if record.expires_at_ms <= now_ms or item_id in self.departing:
                continue
            row = read_row(record.value)
            self._unacknowledged[item_id] = Unacknowledged(len(record.value), row.debt)
            out.append(row.delivery)
        else:
            if len(rows) == limit:
                self._page = min(self._limits.items, limit * 2)
            elif not self._missed:
                self._behind = self._told_empty = False
        self._wake.set()
        self.window.delivered(len(out))
        if out and self._complete is not None:
            out = await self._complete(out)
        return deliveries_frame(out) if out else None


def _draining_frame(grace_ms: int) -> bytes:
    grace = Duration()
    grace.FromMilliseconds(grace_ms)
    return ConnectResponse(draining=RelayDraining(grace=grace)).SerializeToString()
