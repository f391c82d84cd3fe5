"""The inbox: events that wait for a business, from the commit that records them to the one that
follows their acknowledgement.

    stage ──▶ caller's commit ──▶ committed ──▶ readers woken ──▶ read … acknowledge ──▶ deleted

Whoever records an event includes `Staged.changes` in its own transaction (I1), so that an event
and what caused it are durable together. Commits end in another order than they began: readers
never pass the *horizon*, the lowest sequence number whose commit is still open, or a row that
commits late would be skipped for good (I9).

Rows die with their retention (I4): the sweeper removes them, and one that is due is not read any
more. Everything here is opaque: no seal is opened, and nothing is known of streams or of gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from google.protobuf.message import DecodeError

from letterlockd.clock import Clock
from letterlockd.errors import BrokenInvariant, EnvironmentFault
from letterlockd.gateway.inbox_rows import (
    INBOX,
    GivenRanges,
    PartialRows,
    row_key,
    rows_of,
    sequence_of,
)
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.inbox_pb2 import StoredEvent, StoredEvents
from letterlockd.store.port import Delete, Put, Store
from letterlockd.streams.ledger import Place

__all__ = ["INBOX", "Inbox", "Page", "Staged", "Waiting"]

_SEQUENCES_PER_START = 1 << 40
"""Numbers reserved by each start of the process: one durable write instead of one now and then.
Lasts for seven years at 5,000 events/s, and the key's 64 bits for 16 million starts."""


class Waiting(NamedTuple):
    """An event that waits, and where it lies."""

    place: Place
    event: StoredEvent


class Page(NamedTuple):
    """What one read found; every row below `reached` has been looked at."""

    waiting: list[Waiting]
    reached: int


class Staged:
    """Rows on their way into a commit. Exactly one of `committed` and `aborted` must be called,
    or readers stay below these rows forever."""

    __slots__ = ("_resolve", "changes")

    def __init__(self, changes: Sequence[Put], resolve: Callable[[], None]) -> None:
        self.changes = changes
        self._resolve: Callable[[], None] | None = resolve

    def committed(self) -> None:
        """The commit that holds `changes` is durable."""
        self._end()

    def aborted(self) -> None:
        """That commit did not happen, or its outcome is unknown and the process ends."""
        self._end()

    def _end(self) -> None:
        if self._resolve is None:
            raise BrokenInvariant("staged inbox rows were resolved twice")
        resolve, self._resolve = self._resolve, None
        resolve()


class Inbox:
    """All inboxes of a gateway. Open with `Inbox.open`; belongs to one event loop."""

    def __init__(self, store: Store, clock: Clock, first_sequence: int) -> None:
        self._store = store
        self._clock = clock
        self._next = first_sequence
        self._open: dict[AccountId, dict[int, None]] = {}
        self._readers: dict[AccountId, dict[object, Callable[[], None]]] = {}
        self._partial = PartialRows()
        self._given: dict[AccountId, GivenRanges] = {}  # bounded by the numbers that exist

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
        for row in rows_of(events):
            changes.append(Put(INBOX, row_key(account, self._next), row, expires_at_ms))
            self._next += 1
        if not changes:
            raise BrokenInvariant("no inbox event to stage")
        self._open.setdefault(account, {})[first] = None
        return Staged(changes, lambda: self._resolve(account, first))

    def horizon(self, account: AccountId) -> int:
        """The sequence number that readers must stay below now."""
        staged = self._open.get(account)
        return next(iter(staged)) if staged else self._next

    def listen(self, account: AccountId, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` whenever the horizon rises. Returns what ends that; to be called once."""
        handle = object()
        readers = self._readers.setdefault(account, {})
        readers[handle] = wake

        def unlisten() -> None:
            del readers[handle]
            if not readers and self._readers.get(account) is readers:
                del self._readers[account]

        return unlisten

    async def read(self, account: AccountId, start: int, *, limit: int) -> Page:
        """What waits in at most `limit` rows from sequence number `start` on, below the horizon.

        Raises `EnvironmentFault` (STORAGE_DAMAGED) for a row that cannot be read.
        """
        horizon = self.horizon(account)
        if start >= horizon:
            return Page([], max(start, horizon))
        after = row_key(account, start - 1) if start > 0 else b""
        found = await self._store.scan(INBOX, prefix=account, after=after, limit=limit)
        now_ms = self._clock.now_ms()
        waiting: list[Waiting] = []
        for key, record in found:
            sequence = sequence_of(key)
            if sequence >= horizon:
                return Page(waiting, horizon)
            if record.expires_at_ms > now_ms:
                waiting += self._waiting_in(key, sequence, record.value)
        reached = sequence_of(found[-1][0]) + 1 if len(found) == limit else horizon
        return Page(waiting, reached)

    async def acknowledge(self, account: AccountId, places: Sequence[Place]) -> None:
        """Durably done with these events: deletes the rows that have no others left. Raises what
        `Store.commit` raises; the rows concerned come again then."""
        deletes = []
        for place in places:
            key = row_key(account, place.sequence)
            if place.events == 1 or self._partial.complete(key, place):
                deletes.append(Delete(INBOX, key))
        if deletes:
            await self._store.commit([deletes])

    def given(self, account: AccountId) -> GivenRanges:
        """What this process gave to the business already."""
        ranges = self._given.get(account)
        if ranges is None:
            ranges = self._given[account] = GivenRanges()
        return ranges

    def _waiting_in(self, key: bytes, sequence: int, value: bytes) -> list[Waiting]:
        try:
            events = StoredEvents.FromString(value).events
        except DecodeError:
            raise EnvironmentFault(
                "an inbox row is no list of events", reason="STORAGE_DAMAGED"
            ) from None
        count = len(events)
        done = self._partial.acknowledged(key) if count > 1 else 0
        return [
            Waiting(Place(sequence, position, count), event)
            for position, event in enumerate(events)
            if not done >> position & 1
        ]

    def _resolve(self, account: AccountId, first: int) -> None:
        staged = self._open[account]
        del staged[first]
        if not staged:
            del self._open[account]
        for wake in tuple(self._readers.get(account, {}).values()):
            wake()
