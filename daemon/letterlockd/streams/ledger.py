"""Which events of a Receive stream are out: given and not acknowledged.

Acknowledgements come from outside: an id that is not out (unknown, repeated, of another stream) is
ignored, so nothing that a caller sends can reach beyond what it was given. Bounded by the stream's
window, which `letterlockd.streams.receive` keeps. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Ledger", "Place"]


class Place(NamedTuple):
    """Where an event lies: row, index in the row, and how many events the row has."""

    sequence: int
    position: int
    events: int


class Ledger:
    """Events out, by event id."""

    __slots__ = ("_out",)

    def __init__(self) -> None:
        self._out: dict[str, Place] = {}

    def __len__(self) -> int:
        return len(self._out)

    def give(self, event_id: str, place: Place) -> None:
        """An event is about to leave; before its frame is written, since an acknowledgement may
        overtake the end of that write."""
        self._out[event_id] = place

    def take(self, event_ids: Iterable[str]) -> list[Place]:
        """The places of those of `event_ids` that are out; they are out no more."""
        pop = self._out.pop
        return [place for event_id in event_ids if (place := pop(event_id, None)) is not None]
