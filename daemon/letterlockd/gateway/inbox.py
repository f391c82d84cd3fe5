"""The inbox: events that wait for a business, from the commit that records them to the one that
follows their acknowledgement.

    stage ──▶ caller's commit ──▶ committed ──▶ readers woken ──▶ read … acknowledge ──▶ deleted,
                                                                                         or kept

Whoever records an event includes `Staged.changes` in its own transaction (I1), so that an event
and what caused it are durable together. Commits end in another order than they began: readers
never pass the *horizon*, the lowest sequence number whose commit is still open, or a row that
commits late would be skipped for good (I9). Rows that are read as soon as they are committed come
from memory (`inbox_tail`), all others from the store.

Rows die with their retention (I4): the sweeper removes them, and one that is due is not read any
more. Everything here is opaque: no seal is opened, and nothing is known of streams or of gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, Self

from google.protobuf.message import DecodeError

from letterlockd.clock import Clock
from letterlockd.errors import BrokenInvariant, EnvironmentFault
from letterlockd.gateway.inbox_rows import (
    ACKNOWLEDGED,
    INBOX,
    PartialRows,
    event_name,
    row_key,
    rows_of,
    sequence_of,
)
from letterlockd.gateway.inbox_tail import Tail, TailRow
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.inbox_pb2 import StoredEvent, StoredEvents
from letterlockd.store.port import Delete, Put, Store, StoreFull
from letterlockd.streams.held import Item, Place

__all__ = ["INBOX", "Inbox", "Page", "Staged", "events_in", "item_of"]

_SEQUENCES_PER_START = 1 << 40
"""Numbers reserved by each start of the process: one durable write instead of one now and then.
Lasts for seven years at 5,000 events/s, and the key's 64 bits for 16 million starts."""


class Page(NamedTuple):
    """What one read found, with content; every row below `reached` has been looked at."""

    items: list[Item]
    reached: int


class Staged:
    """Rows on their way into a commit. Exactly one of `committed` and `aborted` must be called,
    or readers stay below these rows forever."""

    __slots__ = ("_resolve", "changes")

    def __init__(self, changes: Sequence[Put], resolve: Callable[[bool], None]) -> None:
        self.changes = changes
        self._resolve: Callable[[bool], None] | None = resolve

    def committed(self) -> None:
        """The commit that holds `changes` is durable."""
        self._end(True)

    def aborted(self) -> None:
        """That commit did not happen, or its outcome is unknown and the process ends."""
        self._end(False)

    def _end(self, happened: bool) -> None:
        if self._resolve is None:
            raise BrokenInvariant("staged inbox rows were resolved twice")
        resolve, self._resolve = self._resolve, None
        resolve(happened)


class Inbox:
    """All inboxes of a gateway. Open with `Inbox.open`; belongs to one event loop."""

    def __init__(self, store: Store, clock: Clock, first_sequence: int) -> None:
        self._store = store
        self._clock = clock
        self._next = first_sequence
        self._open: dict[AccountId, dict[int, None]] = {}
        self._readers: dict[AccountId, dict[object, Callable[[], None]]] = {}
        self._partial = PartialRows()
        self._tails: dict[AccountId, Tail] = {}

    @classmethod
    async def open(cls, store: Store, clock: Clock) -> Self:
        """The inboxes of `store`; reserves this start's sequence numbers."""
        return cls(store, clock, await store.reserve(INBOX.name, _SEQUENCES_PER_START))

    def stage(
        self, account: AccountId, events: Sequence[StoredEvent], *, expires_at_ms: int
    ) -> Staged:
        """Rows for `events` (at least one), in order, after everything staged before."""
        first = self._next
        changes = []
        tail = self._tails.get(account)
        for row in rows_of(events):
            changes.append(Put(INBOX, row_key(account, self._next), row.value, expires_at_ms))
            if tail is not None:
                tail.add(TailRow(self._next, row.events, row.sizes, expires_at_ms))
            self._next += 1
        if not changes:
            raise BrokenInvariant("no inbox event to stage")
        self._open.setdefault(account, {})[first] = None
        rows = range(first, self._next)
        return Staged(changes, lambda happened: self._resolve(account, rows, happened))

    def horizon(self, account: AccountId) -> int:
        """The sequence number that readers must stay below now."""
        staged = self._open.get(account)
        return next(iter(staged)) if staged else self._next

    def listen(self, account: AccountId, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever the horizon rises. Returns what ends that; to be called once."""
        handle = object()
        if account not in self._tails:
            self._tails[account] = Tail(self._next)
        readers = self._readers.setdefault(account, {})
        readers[handle] = wake

        def unlisten() -> None:
            del readers[handle]
            if not readers and self._readers.get(account) is readers:
                del self._readers[account]
                del self._tails[account]

        return unlisten

    async def read(self, account: AccountId, start: int, *, limit: int) -> Page:
        """What waits in at most `limit` rows (of the newest: in all) from sequence number `start`
        on, below the horizon.

        Raises `EnvironmentFault` (STORAGE_DAMAGED) for a row that cannot be read.
        """
        horizon = self.horizon(account)
        if start >= horizon:
            return Page([], max(start, horizon))
        now_ms = self._clock.now_ms()
        tail = self._tails.get(account)
        if tail is not None and start >= tail.start:
            return Page(_from_memory(tail.take(start, horizon), now_ms), horizon)
        after = row_key(account, start - 1) if start > 0 else b""
        found = await self._store.scan(INBOX, prefix=account, after=after, limit=limit)
        items: list[Item] = []
        for key, record in found:
            sequence = sequence_of(key)
            if sequence >= horizon:
                return Page(items, horizon)
            if record.expires_at_ms > now_ms:
                items += self._waiting_in(key, sequence, record.value)
        reached = sequence_of(found[-1][0]) + 1 if len(found) == limit else horizon
        return Page(items, reached)

    async def fetch(self, account: AccountId, items: Sequence[Item]) -> None:
        """Give these their content again; those whose row is gone or due stay without."""
        keys = [row_key(account, item.place.sequence) for item in items]
        rows = await self._store.get_many(INBOX, keys)
        now_ms = self._clock.now_ms()
        for item, row in zip(items, rows, strict=True):
            if row is not None and row.expires_at_ms > now_ms:
                events = events_in(row.value)
                if item.place.position < len(events):
                    item.content = events[item.place.position]

    async def acknowledge(
        self,
        account: AccountId,
        places: Sequence[Place],
        *,
        keep_ms: int = 0,
        also: Sequence[Put] = (),
    ) -> bool:
        """Durably done with these events: deletes the rows that have no others left, or keeps them
        for `keep_ms`; `also` becomes durable with it. False: there was no space to keep them, and
        they are deleted, since deleting is what makes room. Raises what `Store.commit` raises; the
        rows concerned come again then."""
        parts = [(row_key(account, place.sequence), place) for place in places]
        done = [
            key for key, place in parts if place.events == 1 or self._partial.complete(key, place)
        ]
        try:
            kept = await self._delete(done, keep_ms, also)
        except BaseException:
            for key, place in parts:
                self._partial.take_back(key, place)
            raise
        for key in done:
            self._partial.forget(key)
        return kept

    async def _delete(self, done: Sequence[bytes], keep_ms: int, also: Sequence[Put]) -> bool:
        operations: list[Put | Delete] = [Delete(INBOX, key) for key in done]
        operations += also
        if keep_ms and done:
            kept = await self._kept(done, self._clock.now_ms() + keep_ms)
            with suppress(StoreFull):
                await self._store.commit([[*operations, *kept]])
                return True
        if operations:
            await self._store.commit([operations])
        return not (keep_ms and done)

    async def _kept(self, keys: Sequence[bytes], until_ms: int) -> list[Put]:
        rows = await self._store.get_many(INBOX, keys)
        return [
            Put(ACKNOWLEDGED, key, row.value, min(row.expires_at_ms, until_ms))
            for key, row in zip(keys, rows, strict=True)
            if row is not None
        ]

    def _waiting_in(self, key: bytes, sequence: int, value: bytes) -> list[Item]:
        events = events_in(value)
        count = len(events)
        done = self._partial.acknowledged(key) if count > 1 else 0
        return [
            item_of(Place(sequence, position, count), event, event.ByteSize())
            for position, event in enumerate(events)
            if not done >> position & 1
        ]

    def _resolve(self, account: AccountId, rows: range, happened: bool) -> None:
        staged = self._open[account]
        del staged[rows.start]
        if not staged:
            del self._open[account]
        if not happened and (tail := self._tails.get(account)) is not None:
            tail.drop(rows)
        for wake in tuple(self._readers.get(account, {}).values()):
            wake()


def events_in(value: bytes) -> Sequence[StoredEvent]:
    """A row's events. Raises `EnvironmentFault` (STORAGE_DAMAGED)."""
    try:
        return StoredEvents.FromString(value).events
    except DecodeError:
        raise EnvironmentFault(
            "an inbox row is no list of events", reason="STORAGE_DAMAGED"
        ) from None


def item_of(place: Place, event: StoredEvent, size: int) -> Item:
    """An event as streams see it: by the name it has, or gets here. One that has a name already was
    given before."""
    name = event.event_id
    event_id = name or event_name(place.sequence, place.position)
    return Item(event_id, place, event.pseudonym, size, event, bool(name))


def _from_memory(rows: Iterator[TailRow], now_ms: int) -> list[Item]:
    return [
        item_of(Place(sequence, position, len(events)), event, size)
        for sequence, events, sizes, expires_at_ms in rows
        if expires_at_ms > now_ms
        for position, (event, size) in enumerate(zip(events, sizes, strict=True))
    ]
