"""The store port: what the rooms above know of storage, and all they know.

A store keeps *records* in *tables*. A record is bytes that the store cannot read, under a key of
1 to 500 bytes, with a version (1, 2, 3 … counted by the store at each write of that key) and an
expiry time. Changes are given as whole business transactions (`Commit`): all of one commit happens,
durably, or none of it; several commits share one disk synchronisation (group commit) and fail one
by one. Nothing here says how an engine does it, and no engine's word appears above the port.

I1: `Store.commit` returns only when the transaction is on stable storage.
I2: `Check` makes a write conditional on the version that the writer read.
I4: a table with `expires=True` refuses a `Put` without an expiry time, and the engine keeps the
expiry index entry in the same transaction as the record, also when the record is replaced or
deleted early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from letterlockd.errors import BusyError, EnvironmentFault

__all__ = [
    "ABSENT",
    "NEVER",
    "Check",
    "Commit",
    "CommitConflict",
    "Delete",
    "Outcome",
    "Put",
    "Record",
    "Store",
    "StoreFull",
    "StoreUnavailable",
    "Swept",
    "Table",
]

NEVER = 0
"""Expiry time of a record that does not expire (only in tables with `expires=False`)."""

ABSENT = 0
"""Version to `Check` for when the key must not exist."""


@dataclass(frozen=True, slots=True)
class Table:
    """A named set of records. `number` (1 to 255) is on disk: never reuse one."""

    name: str
    number: int
    expires: bool


class Record(NamedTuple):
    """A stored value with the version and expiry (milliseconds since 1970, 0 = never) it has."""

    value: bytes
    version: int
    expires_at_ms: int


class Put(NamedTuple):
    """Write `value` under `key`, whatever was there. `expires_at_ms` as the table demands."""

    table: Table
    key: bytes
    value: bytes
    expires_at_ms: int = NEVER


class Delete(NamedTuple):
    """Remove `key`; removing what is not there is not an error."""

    table: Table
    key: bytes


class Check(NamedTuple):
    """The whole commit fails unless `key` has exactly `version` now (`ABSENT`: does not exist)."""

    table: Table
    key: bytes
    version: int


Commit = Sequence[Put | Delete | Check]
"""One business transaction. Checks are judged against the state before the commit's own writes,
wherever they stand in the sequence."""


@dataclass(frozen=True, slots=True)
class CommitConflict:
    """A `Check` failed: nothing of that commit happened. Names the first check that failed."""

    table: Table
    key: bytes
    found_version: int


Outcome = CommitConflict | None
"""What became of one commit: None when all of it is durable."""


class Swept(NamedTuple):
    """What one sweep step removed: (table name, count) pairs; `more` when due records are left."""

    removed: tuple[tuple[str, int], ...]
    more: bool


class StoreFull(BusyError):
    """No space left on the device, or the configured size is reached. Nothing was written."""

    reason = "STORAGE_FULL"


class StoreUnavailable(EnvironmentFault):
    """The engine is gone or its data cannot be used; what was in flight has an unknown outcome."""

    reason = "STORAGE_UNAVAILABLE"


class Store(Protocol):
    """One store. Reads see every commit whose `commit()` has returned.

    All methods may raise `StoreUnavailable`; `commit` may raise `StoreFull`, in which case none of
    the commits handed in with that call happened.
    """

    async def commit(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make each commit durable or refuse it; one outcome for each, in order.

        Waits (back-pressure) while more than the engine's bound is queued.
        """
        ...

    async def get(self, table: Table, key: bytes) -> Record | None:
        """The record under `key`, or None. An expired record that is not yet swept is returned:
        the caller compares `expires_at_ms` where that matters."""
        ...

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[Record | None]:
        """One answer for each key, in order, from one snapshot."""
        ...

    async def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int
    ) -> list[tuple[bytes, Record]]:
        """At most `limit` (1 to 10,000) records whose key starts with `prefix` and is greater than
        `after`, in ascending key order."""
        ...

    async def count(self, table: Table) -> int:
        """How many records the table holds."""
        ...

    async def due(self, table: Table, now_ms: int, *, limit: int) -> list[tuple[bytes, Record]]:
        """At most `limit` records of one table whose expiry time is at or before `now_ms`, the
        earliest first: for tables whose owner has something to say when a record dies."""
        ...

    async def sweep(
        self, now_ms: int, *, limit: int, keep: frozenset[Table] = frozenset()
    ) -> Swept:
        """Remove at most `limit` records whose expiry time is at or before `now_ms`, except those
        of the tables in `keep`, whose owners use `due` and delete them themselves."""
        ...

    async def reserve(self, name: str, count: int) -> int:
        """Durably reserve `count` numbers of the sequence `name`; returns the first. Numbers are
        never handed out twice, over restarts too; a gap is possible."""
        ...

    async def aclose(self) -> None:
        """Finish what is queued, then close. Further calls raise `StoreUnavailable`."""
        ...
