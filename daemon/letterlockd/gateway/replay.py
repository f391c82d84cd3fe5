"""Puts acknowledged events that were kept back into the inbox, at their old places in its order.

Knows no stream: who reads the inbox is told where to read again by the caller.
"""

from __future__ import annotations

from typing import NamedTuple

from letterlockd.clock import Clock
from letterlockd.gateway.inbox import events_in
from letterlockd.gateway.inbox_rows import ACKNOWLEDGED, INBOX, event_name, row_key, sequence_of
from letterlockd.limits import MAX_REPLAY_BYTES, MAX_REPLAY_PAGES, READ_ROWS
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.inbox_pb2 import StoredEvents
from letterlockd.store.port import Delete, Put, Record, Store

__all__ = ["Part", "Replay"]


class Part(NamedTuple):
    """How many events of which row on are back, and from which row on to continue; 0: all done."""

    events: int
    first: int
    next: int


class Replay:
    """Of all business numbers."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def put_back(self, account: AccountId, start: int, from_ms: int) -> Part:
        """The kept rows from `start` on that hold something recorded at or after `from_ms`: one
        transaction of bounded size. Raises what the store raises."""
        for _ in range(MAX_REPLAY_PAGES):
            after = row_key(account, start - 1) if start > 0 else b""
            found = await self._store.scan(
                ACKNOWLEDGED, prefix=account, after=after, limit=READ_ROWS
            )
            operations: list[Put | Delete] = []
            events = size = 0
            for key, row in found:
                start = sequence_of(key) + 1
                if again := self._again(key, row, from_ms):
                    put = Put(INBOX, key, again.SerializeToString(), row.expires_at_ms)
                    operations += (put, Delete(ACKNOWLEDGED, key))
                    events += len(again.events)
                    size += len(row.value)
                    if size >= MAX_REPLAY_BYTES:
                        break
            whole = len(found) < READ_ROWS and size < MAX_REPLAY_BYTES
            if operations:
                await self._store.commit([operations])
                return Part(events, sequence_of(operations[0].key), 0 if whole else start)
            if whole:
                return Part(0, 0, 0)
        return Part(0, 0, start)

    def _again(self, key: bytes, row: Record, from_ms: int) -> StoredEvents | None:
        """The row, its events named so that they are known as given before."""
        if row.expires_at_ms <= self._clock.now_ms():
            return None
        events = events_in(row.value)
        if all(event.time_ms < from_ms for event in events):
            return None
        for position, event in enumerate(events):
            event.event_id = event.event_id or event_name(sequence_of(key), position)
        return StoredEvents(events=events)
