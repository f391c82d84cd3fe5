"""The storage port in memory: for tests of the rooms above, held to the same contract suite.

Nothing survives the process and nothing is durable, so it is no engine for a daemon. `full` makes
commits fail as on a full disk; `lose()` behaves like an engine whose writer died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from letterlockd.store.limits import (
    check_key,
    check_limit,
    check_sequence,
    check_table,
    measured,
    tables_by_number,
)
from letterlockd.store.port import (
    Check,
    Commit,
    CommitConflict,
    Delete,
    Outcome,
    Put,
    Record,
    StoreFull,
    StoreUnavailable,
    Swept,
    Table,
)

__all__ = ["MemoryStore"]


class MemoryStore:
    """A `Store` for tests. `full`: while True, commits that write raise `StoreFull`."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables_by_number(tables)
        self._records: dict[int, dict[bytes, Record]] = {number: {} for number in self._tables}
        self._sequences: dict[str, int] = {}
        self._closed = self._lost = False
        self.full = False

    async def commit(self, commits: Sequence[Commit]) -> list[Outcome]:
        """As the port says; yields to the loop once, as a real engine does."""
        measured(self._tables, commits)
        await self._turn()
        if self.full and any(isinstance(op, Put) for commit in commits for op in commit):
            raise StoreFull("no space left", retry_after_ms=1_000)
        return [self._commit_one(commit) for commit in commits]

    async def get(self, table: Table, key: bytes) -> Record | None:
        """As the port says."""
        return (await self.get_many(table, [key]))[0]

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[Record | None]:
        """As the port says."""
        records = self._table(table)
        for key in keys:
            check_key(table, key)
        return [records.get(key) for key in keys]

    async def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int
    ) -> list[tuple[bytes, Record]]:
        """As the port says."""
        check_limit(limit)
        records = self._table(table)
        keys = sorted(key for key in records if key.startswith(prefix) and key > after)
        return [(key, records[key]) for key in keys[:limit]]

    async def count(self, table: Table) -> int:
        """As the port says."""
        return len(self._table(table))

    async def due(self, table: Table, now_ms: int, *, limit: int) -> list[tuple[bytes, Record]]:
        """As the port says."""
        check_limit(limit)
        records = self._table(table)
        return [(key, records[key]) for _, key in _due(records, now_ms)[:limit]]

    async def sweep(
        self, now_ms: int, *, limit: int, keep: frozenset[Table] = frozenset()
    ) -> Swept:
        """As the port says."""
        check_limit(limit)
        for table in keep:
            check_table(self._tables, table)
        await self._turn()
        kept = {table.number for table in keep}
        due = [
            (number, key)
            for number in sorted(self._records.keys() - kept)
            for _, key in _due(self._records[number], now_ms)
        ]
        removed: dict[str, int] = {}
        for number, key in due[:limit]:
            del self._records[number][key]
            name = self._tables[number].name
            removed[name] = removed.get(name, 0) + 1
        return Swept(tuple(sorted(removed.items())), len(due) > limit)

    async def reserve(self, name: str, count: int) -> int:
        """As the port says; the first number is 1."""
        check_sequence(name, count)
        await self._turn()
        first = self._sequences.get(name, 1)
        self._sequences[name] = first + count
        return first

    async def aclose(self) -> None:
        """As the port says."""
        self._closed = True

    def lose(self) -> None:
        """From now on every call raises `StoreUnavailable`, as after the death of a writer."""
        self._lost = True

    async def _turn(self) -> None:
        self._check_open()
        await asyncio.sleep(0)
        if self._lost:
            raise StoreUnavailable("the writer is gone")

    def _check_open(self) -> None:
        if self._closed or self._lost:
            raise StoreUnavailable("the store is closed or its writer gone")

    def _table(self, table: Table) -> dict[bytes, Record]:
        self._check_open()
        check_table(self._tables, table)
        return self._records[table.number]

    def _commit_one(self, commit: Commit) -> Outcome:
        for operation in commit:
            if isinstance(operation, Check):
                found = self._version(operation.table, operation.key)
                if found != operation.version:
                    return CommitConflict(operation.table, operation.key, found)
        for operation in commit:
            self._write(operation)
        return None

    def _version(self, table: Table, key: bytes) -> int:
        record = self._records[table.number].get(key)
        return 0 if record is None else record.version

    def _write(self, operation: Put | Delete | Check) -> None:
        records = self._records[operation.table.number]
        if isinstance(operation, Put):
            version = self._version(operation.table, operation.key) + 1
            records[operation.key] = Record(operation.value, version, operation.expires_at_ms)
        elif isinstance(operation, Delete):
            records.pop(operation.key, None)


def _due(records: dict[bytes, Record], now_ms: int) -> list[tuple[int, bytes]]:
    return sorted(
        (record.expires_at_ms, key)
        for key, record in records.items()
        if 0 < record.expires_at_ms <= now_ms
    )
