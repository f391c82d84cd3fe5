"""News that better news may overtake: in traffic, SENT waits a moment for DELIVERED.

    add ──▶ waiting ──time over, too many, everything asked for──▶ due: what was not overtaken,
              └── overtaken: the better news are durable                with all of its writes

A status written, stored as an event and read back only to be replaced a moment later costs as much
as the one that replaces it. Pure bookkeeping: time is passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from letterlockd.model.ids import MessageId

__all__ = ["Overtakable"]

T = TypeVar("T")


class _Waiting(NamedTuple, Generic[T]):
    until_s: float
    ids: tuple[MessageId, ...]
    group: T


class Overtakable(Generic[T]):
    """Groups of news about messages, at most `bound` messages, first in first out."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._groups: deque[_Waiting[T]] = deque()
        self._waiting: set[MessageId] = set()

    @property
    def next_s(self) -> float | None:
        """When the first group is due, on the clock of `add`; None: nothing waits."""
        if not self._groups:
            return None
        return 0.0 if len(self._waiting) > self._bound else self._groups[0].until_s

    def add(self, group: T, ids: Iterable[MessageId], until_s: float) -> None:
        """Keep a group back until then. Times do not go back from one `add` to the next."""
        waiting = _Waiting(until_s, tuple(ids), group)
        self._groups.append(waiting)
        self._waiting.update(waiting.ids)

    def overtaken(self, message_id: MessageId) -> None:
        """Nothing is left to tell of this message's waiting news."""
        self._waiting.discard(message_id)

    def due(self, now_s: float) -> list[tuple[T, frozenset[MessageId]]]:
        """The groups whose time is over, each with its messages that still have news."""
        due = []
        while (next_s := self.next_s) is not None and next_s <= now_s:
            waiting = self._groups.popleft()
            left = frozenset(self._waiting.intersection(waiting.ids))
            self._waiting -= left
            due.append((waiting.group, left))
        return due
