"""Events that were given up after their attempts: kept to be looked at, given again, or dropped.

    inbox row ──bury──▶ dead letter ──replay──▶ inbox, as a new row under the old event id
                            └── drop, or the end of the event's retention (I4) ──▶ gone

What moves, moves in one transaction: an event is in one place at any time. Content stays sealed
here. Knows no stream and no gRPC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from letterlockd.clock import Clock
from letterlockd.errors import NotFound
from letterlockd.gateway.inbox import Inbox, Staged, events_in
from letterlockd.gateway.inbox_rows import (
    DEAD_LETTERS,
    INBOX,
    dead_letter_key,
    event_name,
    parse_event_id,
    row_key,
)
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.inbox_pb2 import DeadLetterRecord
from letterlockd.store.port import Check, Delete, Put, Record, Store
from letterlockd.streams.held import Item

__all__ = ["DeadLetter", "DeadLetters"]

_SEQUENCE = slice(16, 24)
_POSITION = slice(24, 26)


class DeadLetter(NamedTuple):
    """One of them; `expires_at_ms` is the end of its retention."""

    event_id: str
    record: DeadLetterRecord
    expires_at_ms: int


class DeadLetters:
    """Of all business numbers. Every method may raise what the store raises."""

    def __init__(self, store: Store, inbox: Inbox, clock: Clock) -> None:
        self._store = store
        self._inbox = inbox
        self._clock = clock

    async def bury(self, account: AccountId, items: Sequence[Item]) -> None:
        """Make dead letters of events of the inbox; those whose row is gone or due are just
        forgotten."""
        keys = [row_key(account, item.place.sequence) for item in items]
        rows = await self._store.get_many(INBOX, keys)
        now_ms = self._clock.now_ms()
        puts = [
            self._put(account, item, row, now_ms)
            for item, row in zip(items, rows, strict=True)
            if row is not None and row.expires_at_ms > now_ms
        ]
        await self._inbox.acknowledge(account, [item.place for item in items], also=puts)

    async def list(
        self, account: AccountId, *, after: str, limit: int
    ) -> tuple[list[DeadLetter], str]:
        """At most `limit` of a number's dead letters, those after the event id `after` (empty: from
        the first); and where to go on, empty at the end. Raises `InvalidField`."""
        start = dead_letter_key(account, *parse_event_id(after, "page_token")) if after else b""
        found = await self._store.scan(DEAD_LETTERS, prefix=account, after=start, limit=limit)
        now_ms = self._clock.now_ms()
        letters = [_letter(key, row) for key, row in found]
        rest = letters[-1].event_id if len(found) == limit else ""
        return [letter for letter in letters if letter.expires_at_ms > now_ms], rest

    async def get(self, account: AccountId, event_id: str) -> DeadLetter:
        """One of them. Raises `InvalidField`, `NotFound`."""
        (key,) = _keys(account, [event_id])
        row = await self._store.get(DEAD_LETTERS, key)
        if row is None or row.expires_at_ms <= self._clock.now_ms():
            raise NotFound("there is no dead letter of this event")
        return _letter(key, row)

    async def drop(self, account: AccountId, event_ids: Sequence[str]) -> int:
        """Delete them; returns how many there were. Raises `InvalidField`."""
        found = await self._found(account, event_ids)
        if found:
            await self._store.commit([[Delete(DEAD_LETTERS, key) for key in found]])
        return len(found)

    async def replay(self, account: AccountId, event_ids: Sequence[str]) -> int:
        """Put them into the inbox again; returns how many there were. Raises `InvalidField`."""
        while True:
            found = await self._found(account, event_ids)
            if not found or await self._moved(account, found):
                return len(found)

    async def _moved(self, account: AccountId, found: dict[bytes, Record]) -> bool:
        """False when somebody else moved one of them meanwhile: nothing is done then."""
        operations: list[Put | Delete | Check] = []
        staged: list[Staged] = []
        for key, row in found.items():
            letter = _letter(key, row)
            event = letter.record.event
            event.event_id = letter.event_id
            staged.append(self._inbox.stage(account, [event], expires_at_ms=row.expires_at_ms))
            operations += (Check(DEAD_LETTERS, key, row.version), Delete(DEAD_LETTERS, key))
            operations += staged[-1].changes
        happened = False
        try:
            (conflict,) = await self._store.commit([operations])
            happened = conflict is None
        finally:
            for rows in staged:
                (rows.committed if happened else rows.aborted)()
        return happened

    async def _found(self, account: AccountId, event_ids: Sequence[str]) -> dict[bytes, Record]:
        keys = list(dict.fromkeys(_keys(account, event_ids)))
        rows = await self._store.get_many(DEAD_LETTERS, keys)
        now_ms = self._clock.now_ms()
        return {
            key: row
            for key, row in zip(keys, rows, strict=True)
            if row is not None and row.expires_at_ms > now_ms
        }

    @staticmethod
    def _put(account: AccountId, item: Item, row: Record, now_ms: int) -> Put:
        record = DeadLetterRecord(attempts=item.failures, dead_ms=now_ms)
        record.event.CopyFrom(events_in(row.value)[item.place.position])
        record.last_failure = item.last_failure.value if item.last_failure else 0  # type: ignore[assignment]
        key = dead_letter_key(account, *parse_event_id(item.event_id, "event_id"))
        return Put(DEAD_LETTERS, key, record.SerializeToString(), row.expires_at_ms)


def _keys(account: AccountId, event_ids: Sequence[str]) -> list[bytes]:
    return [
        dead_letter_key(account, *parse_event_id(event_id, "event_id")) for event_id in event_ids
    ]


def _letter(key: bytes, row: Record) -> DeadLetter:
    sequence = int.from_bytes(key[_SEQUENCE], "big")
    position = int.from_bytes(key[_POSITION], "big")
    record = DeadLetterRecord.FromString(row.value)
    return DeadLetter(event_name(sequence, position), record, row.expires_at_ms)
