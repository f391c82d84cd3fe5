"""Rows that the relay was too busy for: their conversation waits with them, so none is overtaken.

    refused "busy" ──▶ waits ──time over, and nothing of it is out──▶ all of it again, in order
    open behind it: waits, too, from when it is answered, repaired or taken

*Out* are rows that were open when the first was refused and are not back yet: at the relay, which
refuses them as well (see `relay.refused_pairs`), or under repair. A message sent again to one
device, and a decryption-error message, have no place in the order: each waits for itself alone.

Pure bookkeeping: time is passed in. Holds open rows only, so their bound is its bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from letterlockd.gateway.outbox import OutboxRow
from letterlockd.gateway.tables import outbox_key

__all__ = ["PutOff"]


@dataclass(slots=True)
class _Queue:
    due_s: float
    out: set[int] = field(default_factory=set)
    rows: dict[int, OutboxRow] = field(default_factory=dict)


class PutOff:
    """The conversations that wait. `len`: their rows that are not out."""

    def __init__(self) -> None:
        self._queues: dict[bytes, _Queue] = {}

    def __len__(self) -> int:
        return sum(len(queue.rows) for queue in self._queues.values())

    def __bool__(self) -> bool:
        return bool(self._queues)

    @property
    def next_s(self) -> float | None:
        """When the first conversation is due, on the clock of `refused`; None: none can be."""
        return min((queue.due_s for queue in self._queues.values() if not queue.out), default=None)

    @property
    def out(self) -> list[int]:
        """Sequence numbers of the rows that have to come back first."""
        return [sequence for queue in self._queues.values() for sequence in queue.out]

    def refused(
        self, refused: Sequence[tuple[OutboxRow, float]], open_rows: Iterable[OutboxRow]
    ) -> None:
        """Put rows off until their times, each with its conversation, of which `open_rows` has
        what is not settled."""
        new = set()
        for row, due_s in refused:
            name = _queue_of(row)
            queue = self._queues.get(name)
            if queue is None:
                queue = self._queues[name] = _Queue(due_s)
                new.add(name)
            queue.due_s = max(queue.due_s, due_s)
        for row in open_rows if new else ():
            if (name := _queue_of(row)) in new:
                self._queues[name].out.add(row.sequence)
        for row, _ in refused:
            self.wait(row)

    def wait(self, row: OutboxRow) -> bool:
        """Keep the row back if its conversation waits; False: it does not."""
        queue = self._queues.get(_queue_of(row))
        if queue is None:
            return False
        queue.out.discard(row.sequence)
        queue.rows[row.sequence] = row
        return True

    def gone(self, row: OutboxRow) -> None:
        """The row is settled, or waits elsewhere."""
        name = _queue_of(row)
        queue = self._queues.get(name)
        if queue is None:
            return
        queue.out.discard(row.sequence)
        queue.rows.pop(row.sequence, None)
        if not queue.out and not queue.rows:
            del self._queues[name]

    def due(self, now_s: float) -> list[OutboxRow]:
        """The rows to offer again, in order. Their conversations no longer wait."""
        names = [
            name for name, queue in self._queues.items() if not queue.out and queue.due_s <= now_s
        ]
        rows = [row for name in names for row in self._queues.pop(name).rows.values()]
        return sorted(rows, key=lambda row: row.sequence)


def _queue_of(row: OutboxRow) -> bytes:
    return outbox_key(row.sequence) if row.record.only_device else row.record.conversation
