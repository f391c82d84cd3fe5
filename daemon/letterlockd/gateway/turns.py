"""Whose turn it is: work by conversation, one batch of a conversation at a time.

    put ──▶ waiting ──take──▶ busy ──release──▶ waiting, if more came meanwhile, or forgotten

Outbound, inbound and repair work of one conversation stand in one queue, so its ratchet has one
history (I2) and its messages one order. Pure: knows nothing of what the work is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from letterlockd.model.ids import ConversationId

__all__ = ["Queued", "Turns"]


class Queued(Protocol):
    """What stands in a queue. `day`: works of different days cannot share a job, which brings one
    day key."""

    conversation: ConversationId
    day: int


W = TypeVar("W", bound=Queued)


class Turns(Generic[W]):
    """The conversations of one lane. How much may be put is bounded by those who put."""

    def __init__(self) -> None:
        self._queues: dict[ConversationId, deque[W]] = {}
        self._ready: deque[ConversationId] = deque()
        self._busy: set[ConversationId] = set()

    def __bool__(self) -> bool:
        """Whether something can be taken."""
        return bool(self._ready)

    @property
    def idle(self) -> bool:
        """Whether there is no work at all, waiting or busy."""
        return not self._queues and not self._busy

    def put(self, work: W) -> None:
        """Queue at the end of its conversation."""
        queue = self._queues.get(work.conversation)
        if queue is None:
            queue = self._queues[work.conversation] = deque()
            if work.conversation not in self._busy:
                self._ready.append(work.conversation)
        queue.append(work)

    def put_back(self, conversation: ConversationId, works: Sequence[W]) -> None:
        """Return works of a busy conversation to the front, in their order."""
        queue = self._queues.setdefault(conversation, deque())
        queue.extendleft(reversed(works))

    def take(self, limit: int) -> list[tuple[ConversationId, list[W]]]:
        """At most `limit` works of ready conversations, which are busy until `release`."""
        taken: list[tuple[ConversationId, list[W]]] = []
        while self._ready and limit > 0:
            conversation = self._ready.popleft()
            works = _first_of_one_day(self._queues[conversation], limit)
            if not self._queues[conversation]:
                del self._queues[conversation]
            self._busy.add(conversation)
            taken.append((conversation, works))
            limit -= len(works)
        return taken

    def release(self, conversation: ConversationId) -> None:
        """End the turn."""
        self._busy.discard(conversation)
        if conversation in self._queues:
            self._ready.append(conversation)


def _first_of_one_day(queue: deque[W], limit: int) -> list[W]:
    works = [queue.popleft()]
    while queue and len(works) < limit and queue[0].day == works[0].day:
        works.append(queue.popleft())
    return works
