"""The outbox: accepted messages in the order of acceptance, until the relay has them.

    stage ──commit──▶ committed ──▶ kept in memory ──▶ take
                          └ memory full: only on disk ──scan──▶ take

A reader never goes past the lowest number whose commit is still open (the horizon): a row that
commits late would be skipped otherwise. Rows freshly committed are taken from a bounded memory and
need not be read back. Knows nothing of the relay.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from letterlockd.gateway.tables import OUTBOX, outbox_key
from letterlockd.records.v1.gateway_pb2 import OutboxRecord
from letterlockd.store.port import Put, Store

__all__ = ["Outbox", "OutboxRow"]

_NUMBERS_PER_START = 1 << 40
"""Reserved by each start of the process: one durable write instead of one now and then."""

_MAX_KEPT = 4_096
"""Rows in memory, some 10 MB; twice what may be unanswered at the relay."""


class OutboxRow(NamedTuple):
    """A row with its number."""

    sequence: int
    record: OutboxRecord

    def put(self) -> Put:
        """The write that stores it."""
        key, record = outbox_key(self.sequence), self.record
        return Put(OUTBOX, key, record.SerializeToString(), record.expire_ms)


class Outbox:
    """Table 18, and which of it was taken. Open with `open`."""

    def __init__(self, store: Store, first: int, count: int, generation: int) -> None:
        self._store = store
        self.generation = generation
        self._next = first
        self._open: dict[int, None] = {}
        self._kept: OrderedDict[int, OutboxRow] = OrderedDict()
        self._position = 0
        self._only_on_disk_until = self._committed_until = first - 1 if count else 0
        self._news = asyncio.Event()
        self.count = count

    @classmethod
    async def open(cls, store: Store, *, generation: int = 0) -> Outbox:
        """The outbox as it was left: everything on disk is taken first. `generation`: the store's,
        see `store.history`."""
        first = await store.reserve(OUTBOX.name, _NUMBERS_PER_START)
        return cls(store, first, await store.count(OUTBOX), generation)

    @property
    def next_sequence(self) -> int:
        """The number that the next row will have."""
        return self._next

    def is_outdated(self, row: OutboxRow) -> bool:
        """Whether the row cannot be sent as it is: nothing was encrypted for it yet, or that was
        before the store was last restored, and its keys may have been used for something else
        (I2)."""
        return row.record.unencrypted or row.record.generation < self.generation

    def stage(self, record: OutboxRecord) -> OutboxRow:
        """Number a new row; it is to be committed, or aborted, soon."""
        record.generation = self.generation
        row = OutboxRow(self._next, record)
        self._next += 1
        self._open[row.sequence] = None
        return row

    def committed(self, row: OutboxRow) -> None:
        """The row is durable."""
        self._close(row.sequence)
        self.count += 1
        self._committed_until = max(self._committed_until, row.sequence)
        if len(self._kept) < _MAX_KEPT:
            self._kept[row.sequence] = row
        else:
            self._only_on_disk_until = max(self._only_on_disk_until, row.sequence)

    def aborted(self, row: OutboxRow) -> None:
        """The row was not committed."""
        self._close(row.sequence)

    def removed(self, count: int) -> None:
        """So many rows were deleted."""
        self.count -= count

    def taken(self, sequence: int) -> bool:
        """Whether `take` has given this row already."""
        return sequence <= self._position

    def forget(self, sequence: int) -> None:
        """The row is deleted before it was taken."""
        self._kept.pop(sequence, None)

    async def take(self, limit: int) -> list[OutboxRow]:
        """The next rows, 1 to `limit` of them, in order; waits for the first."""
        while True:
            self._news.clear()
            before = self._position
            rows = await self._next_rows(limit)
            if rows:
                return rows
            if self._position == before:
                await self._news.wait()

    def _close(self, sequence: int) -> None:
        del self._open[sequence]
        self._news.set()

    def _horizon(self) -> int:
        # Numbers are staged in ascending order, so the first open one is the lowest.
        return next(iter(self._open), self._committed_until + 1) - 1

    async def _next_rows(self, limit: int) -> list[OutboxRow]:
        if self._position < self._only_on_disk_until:
            return await self._from_disk(limit)
        horizon = self._horizon()
        rows = []
        for sequence in sorted(self._kept)[:limit] if self._kept else ():
            if sequence > horizon:
                break
            rows.append(self._kept.pop(sequence))
        if rows:
            self._position = rows[-1].sequence
        return rows

    async def _from_disk(self, limit: int) -> list[OutboxRow]:
        horizon = min(self._horizon(), self._only_on_disk_until)
        found = await self._store.scan(OUTBOX, after=outbox_key(self._position), limit=limit)
        rows = [
            OutboxRow(sequence, OutboxRecord.FromString(record.value))
            for key, record in found
            if (sequence := int.from_bytes(key, "big")) <= horizon
        ]
        self._position = rows[-1].sequence if rows else horizon
        for sequence in [s for s in self._kept if s <= self._position]:
            del self._kept[sequence]
        return rows
