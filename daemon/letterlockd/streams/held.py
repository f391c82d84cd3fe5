"""What is held in memory of one business number's events while streams work on them.

Shapes only: events, conversations and the streams as consumers; what happens to them is in
`letterlockd.streams.leases`. Content is a passenger here, and only until an event is given. Pure.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections import deque
from typing import NamedTuple

__all__ = ["Consumer", "Conversation", "Failure", "Item", "Place", "ReadySet"]


class Place(NamedTuple):
    """Where an event lies: row, index in the row, and how many events the row has. Places ascend
    in the order of recording."""

    sequence: int
    position: int
    events: int


class Failure(enum.IntEnum):
    """How an attempt failed; values as AttemptFailure on the wire."""

    NACKED = 1
    LEASE_EXPIRED = 2
    STREAM_LOST = 3


class Item:
    """One event. `size` in bytes at rest; `content` is set from its reading to its first handing
    out; `failures` counts attempts that failed; `given`: some stream had it before; `due_ms`: it is
    not to be given again before, 0 when nothing holds it back."""

    __slots__ = (
        "consumer",
        "content",
        "conversation",
        "deadline_ms",
        "due_ms",
        "dying",
        "event_id",
        "failures",
        "given",
        "last_failure",
        "place",
        "settling",
        "size",
    )

    def __init__(
        self,
        event_id: str,
        place: Place,
        conversation: bytes,
        size: int,
        content: object = None,
        given: bool = False,
    ) -> None:
        self.event_id = event_id
        self.place = place
        self.conversation = conversation
        self.size = size
        self.content = content
        self.given = given
        self.failures = 0
        self.last_failure: Failure | None = None
        self.due_ms = 0
        self.deadline_ms = 0
        self.consumer: Consumer | None = None
        self.settling = False
        self.dying = False

    def __repr__(self) -> str:
        return f"Item({self.event_id!r}, failures={self.failures})"


class Conversation:
    """The held events of one user. `out`: leased, or settled and not yet committed, as they went
    out; `waiting`: the others, in order; `left_from`: from this row on, events were read over and
    left in the store; `at`: among which it stands for giving."""

    __slots__ = ("at", "key", "left_from", "out", "owner", "waiting")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.owner: Consumer | None = None
        self.out: dict[str, Item] = {}
        self.waiting: deque[Item] = deque()
        self.left_from: int | None = None
        self.at: ReadySet | None = None

    def wait(self, item: Item) -> None:
        """Let an item wait, at its place in the order."""
        waiting = self.waiting
        if not waiting or item.place > waiting[-1].place:
            waiting.append(item)
        elif item.place < waiting[0].place:
            waiting.appendleft(item)
        else:
            waiting.insert(bisect_left(waiting, item.place, key=lambda one: one.place), item)

    def stop_waiting(self, item: Item) -> bool:
        """Take an item out of the order; False where it does not wait."""
        at = bisect_left(self.waiting, item.place, key=lambda one: one.place)
        if at == len(self.waiting) or self.waiting[at] is not item:
            return False
        del self.waiting[at]
        return True

    def lease(self, item: Item, consumer: Consumer) -> None:
        """An event goes out to a stream, and the conversation is that stream's."""
        self.owner = consumer
        self.out[item.event_id] = item
        item.consumer = consumer
        consumer.leased[item.event_id] = item
        consumer.used += 1
        consumer.used_bytes += item.size

    def release(self) -> None:
        """Nobody's, if no stream has anything of it out."""
        if all(item.consumer is None for item in self.out.values()):
            self.owner = None

    def goes_on_with(self, consumer: Consumer) -> bool:
        """Whether an event behind all that are in memory may go to this stream."""
        if self.owner is not consumer and self.owner is not None:
            return False
        return not self.waiting and self.left_from is None


ReadySet = dict[Conversation, None]
"""Conversations with something to give now, in the order in which they became so."""


class Consumer:
    """A stream as one that events are leased to. `start`: it takes nothing from rows before;
    `used` and `used_bytes`: what it has out, settled and uncommitted included."""

    __slots__ = (
        "lease_ms",
        "leased",
        "ready",
        "start",
        "used",
        "used_bytes",
        "window",
        "window_bytes",
    )

    def __init__(self, window: int, window_bytes: int, lease_ms: int, start: int) -> None:
        self.window = window
        self.window_bytes = window_bytes
        self.lease_ms = lease_ms
        self.start = start
        self.used = 0
        self.used_bytes = 0
        self.leased: dict[str, Item] = {}
        self.ready: ReadySet = {}

    @property
    def has_room(self) -> bool:
        """Whether one more event may be given."""
        return self.used < self.window and self.used_bytes < self.window_bytes
