"""The newest rows of a number's inbox as they were staged, for streams that keep up: what has just
been committed need not be scanned and parsed again.

    stage ──▶ rows ──committed, below the horizon──▶ take ──▶ (gone from here)
               └── too many, or too large ──▶ none: the store has them

Holds every row from `start` on, or it would hide one. Knows no store, no commit and no stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from letterlockd.limits import MAX_TAIL_BYTES, MAX_TAIL_ROWS
from letterlockd.records.v1.inbox_pb2 import StoredEvent

__all__ = ["Tail", "TailRow"]


class TailRow(NamedTuple):
    """A staged row."""

    sequence: int
    events: Sequence[StoredEvent]
    sizes: Sequence[int]
    expires_at_ms: int


class Tail:
    """Of one number, as long as streams receive for it."""

    def __init__(self, start: int) -> None:
        self.start = start
        """Every row from this sequence number on is here, if it was staged and not aborted."""
        self._rows: dict[int, TailRow] = {}
        self._bytes = 0

    def add(self, row: TailRow) -> None:
        """The next row; ascending."""
        self._rows[row.sequence] = row
        self._bytes += sum(row.sizes)
        if len(self._rows) > MAX_TAIL_ROWS or self._bytes > MAX_TAIL_BYTES:
            self._rows.clear()
            self._bytes = 0
            self.start = row.sequence + 1

    def drop(self, sequences: range) -> None:
        """These were not committed."""
        for sequence in sequences:
            self._remove(sequence)

    def take(self, start: int, end: int) -> Iterator[TailRow]:
        """The rows from `start` (at least `self.start`) to below `end`; nothing before `end` is
        kept here afterwards."""
        for sequence in list(self._below(end)):
            row = self._remove(sequence)
            if row is not None and sequence >= start:
                yield row
        self.start = max(self.start, end)

    def _below(self, end: int) -> Iterator[int]:
        for sequence in self._rows:
            if sequence >= end:
                return
            yield sequence

    def _remove(self, sequence: int) -> TailRow | None:
        row = self._rows.pop(sequence, None)
        if row is not None:
            self._bytes -= sum(row.sizes)
        return row
