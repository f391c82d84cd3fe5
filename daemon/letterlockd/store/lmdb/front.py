"""`LmdbStore`: the storage port on LMDB, as the rooms above use it.

    call ──▶ checked ──▶ gate (back-pressure) ──▶ committer ──fsync──▶ answer ──▶ visible to reads
    read ──▶ memory map, inline

Writes go to a process of their own (see the package); reads never wait for them. Crash-only: if
the committer is lost, every call raises `StoreUnavailable` for good and `failed()` returns, and
the daemon exits to be started again; see `link`.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import lmdb

from letterlockd.errors import BrokenInvariant
from letterlockd.legs import Reading
from letterlockd.model.histogram import Histogram
from letterlockd.store.limits import (
    check_key,
    check_limit,
    check_sequence,
    check_table,
    measured,
    tables_by_number,
)
from letterlockd.store.lmdb.folder import claim
from letterlockd.store.lmdb.link import CommitterLink
from letterlockd.store.lmdb.reader import Reader
from letterlockd.store.lmdb.wire import COMMIT, RESERVE, SWEEP, Start
from letterlockd.store.port import (
    Check,
    Commit,
    CommitConflict,
    Outcome,
    Put,
    Record,
    StoreFull,
    StoreUnavailable,
    Swept,
    Table,
)

__all__ = ["LmdbStore", "Migration"]

_MIN_MAP_BYTES = 1024 * 1024
_READY_SECONDS = 120.0
"""A store that has to migrate takes its time."""

_PROOF = "proof"
"""A sequence whose numbers nobody uses."""

_SCAN_STEP = 500
"""Records that a scan reads before it lets the event loop run."""


class Migration(NamedTuple):
    """One step from `from_version` to the next schema version.

    `function` is "package.module:name" of a function that takes the `Transaction` of all steps.
    It runs in the committer, so its module must be import-light (no asyncio, no gRPC).
    """

    from_version: int
    function: str


class LmdbStore:
    """A `Store` in one folder. Open with `LmdbStore.open`, close with `aclose`."""

    def __init__(
        self, link: CommitterLink, reader: Reader, tables: Mapping[int, Table], lock: int
    ) -> None:
        self._link = link
        self._reader = reader
        self._tables = tables
        self._lock = lock
        self._answered = 0
        self._refused = 0
        self.commit_times = Histogram()
        """How long calls of `commit` took, the wait for room included."""

    @classmethod
    async def open(
        cls,
        folder: Path,
        tables: Sequence[Table],
        *,
        kind: str,
        schema_version: int,
        migrations: Sequence[Migration] = (),
        map_size: int = 64 * 1024 * 1024,
        max_size_bytes: int | None = None,
        lock_wait_seconds: float = 5.0,
    ) -> Self:
        """Lock, create or migrate, and open the store in `folder`.

        `kind` names the owner ("gateway"): a folder of another kind is refused. `map_size` is
        only the first size, it doubles as needed up to `max_size_bytes` (at least 1 MiB; None: as
        far as the disk goes). Raises `EnvironmentFault` with the reasons DATA_FOLDER_LOCKED,
        DATA_FOLDER_FOREIGN, DATA_FOLDER_UNUSABLE, SCHEMA_TOO_NEW, SCHEMA_TOO_OLD.
        """
        if re.fullmatch(r"[a-z][a-z0-9-]{0,31}", kind) is None:
            raise BrokenInvariant("store kind: 1 to 32 of a-z, 0-9 and -")
        if min(map_size, max_size_bytes or map_size) < _MIN_MAP_BYTES:
            raise BrokenInvariant(f"store size: at least {_MIN_MAP_BYTES} bytes")
        by_number = tables_by_number(tables)
        start = Start(
            folder=str(folder),
            kind=kind,
            schema_version=schema_version,
            tables=[(table.number, table.name, table.expires) for table in tables],
            migrations=[(step.from_version, step.function) for step in migrations],
            map_size=map_size,
            max_size_bytes=max_size_bytes,
        )
        lock = await claim(folder, wait_seconds=lock_wait_seconds)
        try:
            link = await CommitterLink.launch(start, lock=lock, timeout_seconds=_READY_SECONDS)
        except BaseException:
            os.close(lock)
            raise
        try:
            return cls(link, Reader(folder, tables), by_number, lock)
        except lmdb.Error as error:
            await link.aclose()
            os.close(lock)
            raise StoreUnavailable(f"the store cannot be read: {error}") from error

    @property
    def committer_pid(self) -> int:
        """Process id of the committer, for metrics and crash tests."""
        return self._link.pid

    @property
    def position(self) -> int:
        """A number that every commit raises, and that every copy of the store carries."""
        self._link.check_open()
        return self._reader.position()

    async def failed(self) -> StoreUnavailable | None:
        """Return the failure when the committer is lost (the daemon must exit then), or None
        after an orderly close."""
        return await self._link.ended()

    async def commit(self, commits: Sequence[Commit]) -> list[Outcome]:
        """As the port says. The commits of one call share one transaction."""
        size = measured(self._tables, commits)
        if not commits:
            self._link.check_open()
            return []
        body = [_encoded(commit) for commit in commits]
        loop = asyncio.get_running_loop()
        began = loop.time()
        answers = await self._write(COMMIT, body, commits=len(commits), size=size)
        self.commit_times.observe(loop.time() - began)
        return [None if answer is None else self._conflict(*answer) for answer in answers]

    async def get(self, table: Table, key: bytes) -> Record | None:
        """As the port says."""
        return (await self.get_many(table, (key,)))[0]

    async def get_many(self, table: Table, keys: Sequence[bytes]) -> list[Record | None]:
        """As the port says."""
        self._check_readable(table)
        for key in keys:
            check_key(table, key)
        return self._reader.get_many(table.number, keys)

    async def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int
    ) -> list[tuple[bytes, Record]]:
        """As the port says. Long scans let the loop run in between, so they are not one
        snapshot."""
        check_limit(limit)
        found: list[tuple[bytes, Record]] = []
        while True:
            self._check_readable(table)
            step = min(_SCAN_STEP, limit - len(found))
            records, at_end = self._reader.scan(table.number, prefix, after, step)
            found += records
            if at_end or len(found) == limit:
                return found
            after = records[-1][0]
            await asyncio.sleep(0)

    async def count(self, table: Table) -> int:
        """As the port says."""
        self._check_readable(table)
        return self._reader.count(table.number)

    async def due(self, table: Table, now_ms: int, *, limit: int) -> list[tuple[bytes, Record]]:
        """As the port says; like a scan, a long answer is not one snapshot."""
        check_limit(limit)
        found: list[tuple[bytes, Record]] = []
        after = b""
        while True:
            self._check_readable(table)
            step = min(_SCAN_STEP, limit - len(found))
            records, after = self._reader.due(table.number, now_ms, after, step)
            found += records
            if not after or len(found) == limit:
                return found
            await asyncio.sleep(0)

    async def sweep(
        self, now_ms: int, *, limit: int, keep: frozenset[Table] = frozenset()
    ) -> Swept:
        """As the port says."""
        check_limit(limit)
        for table in keep:
            check_table(self._tables, table)
        body = (now_ms, limit, [table.number for table in keep])
        removed, more = await self._link.ask(SWEEP, body, commits=1, size=0)
        by_name = sorted((self._name(number), count) for number, count in removed.items())
        return Swept(tuple(by_name), more)

    async def reserve(self, name: str, count: int) -> int:
        """As the port says; the first number is 1."""
        check_sequence(name, count)
        return int(await self._write(RESERVE, (name, count), commits=1, size=0))

    def writer(self) -> Reading:
        """Whether the committer writes: sweeps are no proof, they may have nothing to write."""
        return Reading(self._link.open_calls, self._answered)

    def space(self) -> Reading:
        """Whether there is room for what adds."""
        return Reading(0, 0, self._refused)

    async def prove(self) -> None:
        """Write something small, durably. Raises what `reserve` does."""
        await self.reserve(_PROOF, 1)

    async def aclose(self) -> None:
        """As the port says; the folder is free for another daemon afterwards. Idempotent."""
        await self._link.aclose()
        if self._lock >= 0:
            self._reader.close()
            os.close(self._lock)
            self._lock = -1

    async def _write(self, kind: int, body: object, *, commits: int, size: int) -> Any:
        try:
            answer = await self._link.ask(kind, body, commits=commits, size=size)
        except StoreFull:
            self._answered += 1
            self._refused += 1
            raise
        self._answered += 1
        return answer

    def _check_readable(self, table: Table) -> None:
        self._link.check_open()
        check_table(self._tables, table)

    def _name(self, number: int) -> str:
        """A table that only older programs had is swept, too, and goes by its number."""
        known = self._tables.get(number)
        return f"table-{number}" if known is None else known.name

    def _conflict(self, number: int, key: bytes, found_version: int) -> CommitConflict:
        return CommitConflict(self._tables[number], key, found_version)


def _encoded(commit: Commit) -> tuple[list[Any], list[Any]]:
    checks: list[Any] = []
    writes: list[Any] = []
    for operation in commit:
        if type(operation) is Put:
            table, key, value, expires_at_ms = operation
            writes.append((table.number, key, value, expires_at_ms))
        elif type(operation) is Check:
            checks.append((operation.table.number, operation.key, operation.version))
        else:
            writes.append((operation.table.number, operation.key))
    return checks, writes
