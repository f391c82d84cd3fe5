"""Random commit histories: both engines against a dict model, and the expiry index against the
records. The LMDB engine runs in this process here, so that an example costs milliseconds."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb
from hypothesis import given, settings
from hypothesis import strategies as st
from letterlockd.store.lmdb.front import _encoded
from letterlockd.store.lmdb.prepare import open_engine
from letterlockd.store.lmdb.schema import HEADER, table_db
from letterlockd.store.lmdb.verify import verify
from letterlockd.store.lmdb.wire import COMMIT, DONE, FULL, SWEEP, Start
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Check, Commit, CommitConflict, Delete, Put, Record, Table

LETTERS = Table("letters", 10, expires=True)
PEOPLE = Table("people", 11, expires=False)
RECEIPTS = Table("receipts", 12, expires=True)
TABLES = (LETTERS, PEOPLE, RECEIPTS)

Records = dict[tuple[int, bytes], Record]

keys = st.sampled_from([b"a", b"ab", b"b", b"\xff" * 500])
values = st.binary(max_size=8) | st.integers(0, 30_000).map(bytes)
puts = st.builds(Put, st.just(LETTERS), keys, values, st.integers(1, 9)) | st.builds(
    Put, st.just(PEOPLE), keys, values, st.just(0)
)
puts |= st.builds(Put, st.just(RECEIPTS), keys, values, st.integers(1, 9))
deletes = st.builds(Delete, st.sampled_from(TABLES), keys)
checks = st.builds(Check, st.sampled_from(TABLES), keys, st.integers(0, 3))
commits = st.lists(puts | deletes | checks, max_size=6)
sweeps = st.tuples(
    st.integers(0, 9), st.integers(1, 4), st.sampled_from([[], [10], [12], [10, 12]])
)
groups = st.lists(st.lists(commits, max_size=3) | sweeps, min_size=1, max_size=4)
histories = st.lists(groups, max_size=12)


class Model:
    """The port's promises in the plainest words."""

    def __init__(self) -> None:
        self.records: Records = {}

    def commit(self, commit: Commit) -> CommitConflict | None:
        for op in commit:
            if isinstance(op, Check) and self._version(op) != op.version:
                return CommitConflict(op.table, op.key, self._version(op))
        for op in commit:
            if isinstance(op, Put):
                record = Record(op.value, self._version(op) + 1, op.expires_at_ms)
                self.records[op.table.number, op.key] = record
            elif isinstance(op, Delete):
                self.records.pop((op.table.number, op.key), None)
        return None

    def sweep(self, now_ms: int, limit: int, kept: list[int]) -> tuple[dict[int, int], bool]:
        due = sorted(
            (number, record.expires_at_ms, key)
            for (number, key), record in self.records.items()
            if 0 < record.expires_at_ms <= now_ms and number not in kept
        )
        removed: dict[int, int] = {}
        for number, _, key in due[:limit]:
            del self.records[number, key]
            removed[number] = removed.get(number, 0) + 1
        return removed, len(due) > limit

    def _version(self, op: Put | Delete | Check) -> int:
        record = self.records.get((op.table.number, op.key))
        return 0 if record is None else record.version


@given(history=histories)
@settings(max_examples=150, deadline=None)
def test_lmdb_engine_against_the_model(history: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine, model = open_engine(_start(folder, None)), Model()
        for group in history:
            answers = engine.run(_requests(group))
            expected = [(id_, DONE, _expected(model, task)) for id_, task in enumerate(group)]
            assert answers == expected
        engine._env.close()
        _agrees(folder, model.records)


@given(history=histories)
@settings(max_examples=150, deadline=None)
def test_a_full_store_does_a_request_wholly_or_not_at_all(history: list[list[Any]]) -> None:
    """With hardly any room: what was answered DONE happened as in the model, FULL did not."""
    with tempfile.TemporaryDirectory() as folder:
        engine, model = open_engine(_start(folder, 100_000)), Model()
        for group in history:
            for id_, status, body in engine.run(_requests(group)):
                if status == FULL:
                    continue
                task = group[id_]
                if isinstance(task, tuple):
                    removed = sum(body[0].values())  # a step may be cut smaller when space is short
                    task = (task[0], removed, task[2]) if body[1] else task
                assert body == _expected(model, task)
        engine._env.close()
        _agrees(folder, model.records)


@given(history=histories)
@settings(max_examples=100, deadline=None)
def test_memory_engine_against_the_model(history: list[list[Any]]) -> None:
    asyncio.run(_memory_history(history))


async def _memory_history(history: list[list[Any]]) -> None:
    store, model = MemoryStore(TABLES), Model()
    for task in (task for group in history for task in group):
        if isinstance(task, tuple):
            now_ms, limit, kept = task
            keep = frozenset(table for table in TABLES if table.number in kept)
            swept = await store.sweep(now_ms, limit=limit, keep=keep)
            removed, more = model.sweep(*task)
            numbers = {table.name: table.number for table in TABLES}
            assert ({numbers[name]: n for name, n in swept.removed}, swept.more) == (removed, more)
        else:
            assert await store.commit(task) == [model.commit(commit) for commit in task]
    found = {
        (table.number, key): record
        for table in TABLES
        for key, record in await store.scan(table, limit=100)
    }
    assert found == model.records


def _start(folder: str, max_size_bytes: int | None) -> Start:
    tables = [(table.number, table.name, table.expires) for table in TABLES]
    return Start(folder, "test", 1, tables, [], 65_536, max_size_bytes)


def _requests(group: Sequence[Any]) -> list[tuple[int, int, Any]]:
    return [
        (id_, SWEEP, task)
        if isinstance(task, tuple)
        else (id_, COMMIT, [_encoded(commit) for commit in task])
        for id_, task in enumerate(group)
    ]


def _expected(model: Model, task: Any) -> Any:
    if isinstance(task, tuple):
        return model.sweep(*task)
    conflicts = [model.commit(commit) for commit in task]
    return [c and (c.table.number, c.key, c.found_version) for c in conflicts]


def _agrees(folder: str, records: Records) -> None:
    report = verify(Path(folder))
    assert (report.records, report.differences) == (len(records), [])
    assert report.expiry_entries == sum(record.expires_at_ms > 0 for record in records.values())
    found: Records = {}
    with lmdb.open(folder, readonly=True, max_dbs=4) as env, env.begin() as txn:
        for table in TABLES:
            database = env.open_db(table_db(table.number), txn=txn, create=False)
            for key, stored in txn.cursor(db=database):
                version, expires_at_ms = HEADER.unpack_from(stored)
                found[table.number, key] = Record(stored[16:], version, expires_at_ms)
    assert found == records
