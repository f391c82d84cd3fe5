"""How the inbox lies in the store, and what of it is known in memory alone.

    19 inbox    number account (16), be64 sequence → StoredEvents; expires

Sequence numbers ascend over restarts, so a scan gives the order of recording. Two things are kept
in memory, bounded, and lost with the process (events then come again, as at-least-once allows):
which events of a row are acknowledged as long as others of it are not, and which events were given.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from letterlockd.limits import (
    MAX_GIVEN_RANGES,
    MAX_PARTIAL_ROWS,
    MAX_ROW_BYTES,
    MAX_ROW_EVENTS,
)
from letterlockd.model.ids import AccountId
from letterlockd.model.varint import varint
from letterlockd.records.v1.inbox_pb2 import StoredEvent
from letterlockd.store.port import Table
from letterlockd.streams.ledger import Place

__all__ = ["INBOX", "GivenRanges", "PartialRows", "row_key", "rows_of", "sequence_of"]

INBOX = Table("inbox", 19, expires=True)

_ACCOUNT_BYTES = 16

_EVENT_TAG = b"\x0a"  # StoredEvents.events: field 1, length-delimited


def row_key(account: AccountId, sequence: int) -> bytes:
    """The key of a row, 24 bytes."""
    return account + sequence.to_bytes(8, "big")


def sequence_of(key: bytes) -> int:
    """The sequence number in a row's key."""
    return int.from_bytes(key[_ACCOUNT_BYTES:], "big")


def rows_of(events: Sequence[StoredEvent]) -> Iterator[bytes]:
    """The events as values of rows, in order, each within the bounds of a row."""
    row: list[bytes] = []
    size = 0
    for event in events:
        value = event.SerializeToString()
        if row and (len(row) == MAX_ROW_EVENTS * 3 or size + len(value) > MAX_ROW_BYTES):
            yield b"".join(row)
            row, size = [], 0
        row += (_EVENT_TAG, varint(len(value)), value)  # repeated fields may be concatenated
        size += len(value)
    if row:
        yield b"".join(row)


class PartialRows:
    """Acknowledged events of rows that have others: one bit each, at most `bound` rows. Beyond it
    the oldest row is forgotten, and comes again as a whole."""

    def __init__(self, bound: int = MAX_PARTIAL_ROWS) -> None:
        self._masks: OrderedDict[bytes, int] = OrderedDict()
        self._bound = bound

    def __len__(self) -> int:
        return len(self._masks)

    def acknowledged(self, key: bytes) -> int:
        """The bits of the row's acknowledged events."""
        return self._masks.get(key, 0)

    def complete(self, key: bytes, place: Place) -> bool:
        """Note that `place` is acknowledged; True when that was the row's last event, and the row
        is to be deleted. Nothing of the row is kept then, so that it comes again if that fails."""
        mask = self._masks.get(key, 0) | 1 << place.position
        if mask == (1 << place.events) - 1:
            self._masks.pop(key, None)
            return True
        self._masks[key] = mask
        if len(self._masks) > self._bound:
            self._masks.popitem(last=False)
        return False


class GivenRanges:
    """Which events of one business number were given by this process, as disjoint ranges.

    A stream gives in ascending order without gaps, so it makes one range however much it gives;
    only streams that start with new events add ranges, and at most `bound` are kept.
    """

    def __init__(self, bound: int = MAX_GIVEN_RANGES) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._bound = bound

    def holds(self, place: Place) -> bool:
        """Whether the event was given before."""
        at = _linear(place)
        before = bisect_right(self._starts, at) - 1
        return before >= 0 and at < self._ends[before]

    def add(self, first: Place, last: Place) -> None:
        """Everything from `first` to `last` was given (or is gone)."""
        start, end = _linear(first), _linear(last) + 1
        low = bisect_right(self._ends, start - 1)  # the first range that touches or follows
        high = bisect_right(self._starts, end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]
        if len(self._starts) > self._bound:
            del self._starts[1], self._ends[0]


def _linear(place: Place) -> int:
    return place.sequence * MAX_ROW_EVENTS + place.position
