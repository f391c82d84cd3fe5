"""I1: kill -9 around the commit. After reopening, what was answered is there; what was not is
wholly there or wholly absent; the expiry index agrees; and the writer goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from letterlockd.errors import EnvironmentFault
from letterlockd.failpoints import VARIABLE
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.store.lmdb.verify import verify
from letterlockd.store.port import Put

from tests.faults.store.front_program import IN_FLIGHT, PARTS, SHARED, TABLES, WIDTH, part_key

pytestmark = pytest.mark.faults

CALLS = 400
ROOT = Path(__file__).parents[3]
BEFORE, AFTER = "store.test.commit.before", "store.test.commit.after"


class Front:
    """The program beside this, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.committer_pid = 0
        self.answered: set[int] = set()
        self.lost = False

    @classmethod
    async def start(cls, folder: Path, failpoints: str = "") -> Front:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.store.front_program", str(folder), str(CALLS)),
            cwd=ROOT,
            env={**os.environ, VARIABLE: failpoints},
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(process)

    async def lines(self) -> AsyncIterator[int]:
        """Follow it to its end; yields how many transactions were answered so far."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            word = line.split()
            if word[0] == b"pid":
                self.committer_pid = int(word[1])
            elif word[0] == b"lost":
                self.lost = True
            elif line.endswith(b"\n"):
                self.answered.add(int(word[0]))
            yield len(self.answered)

    async def finish(self) -> int:
        async for _ in self.lines():
            pass
        return await self.process.wait()


async def reopened(folder: Path) -> LmdbStore:
    return await LmdbStore.open(folder, TABLES, kind="test", schema_version=1)


async def stored_transactions(folder: Path) -> set[int]:
    """The transactions that are there; fails when one is there in part."""
    store = await reopened(folder)
    parts = [key for key, _ in await store.scan(PARTS, limit=10_000)]
    there = {int(key[:6]) for key in parts}
    assert sorted(parts) == sorted(part_key(n, p) for n in there for p in range(WIDTH))
    shared = await store.get(SHARED, b"shared")
    assert (0 if shared is None else shared.version) == len(there)
    assert await store.commit([[Put(SHARED, b"on", b"it goes")]]) == [None]
    await store.aclose()
    assert verify(folder).differences == []
    return there


@pytest.mark.parametrize("passage", [1, 7, 30])
@pytest.mark.parametrize("point", [BEFORE, AFTER])
async def test_the_committer_is_killed(tmp_path: Path, point: str, passage: int) -> None:
    front = await Front.start(tmp_path, f"{point}=kill@{passage}")
    assert await front.finish() == 3
    assert front.lost
    there = await stored_transactions(tmp_path)
    in_flight = there - front.answered
    assert front.answered <= there
    assert len(in_flight) <= IN_FLIGHT
    assert bool(in_flight) is (point == AFTER)


@pytest.mark.parametrize("passage", [1, 7, 30])
@pytest.mark.parametrize("point", [BEFORE, AFTER])
async def test_the_front_is_killed_and_the_committer_finishes(
    tmp_path: Path, point: str, passage: int
) -> None:
    front = await Front.start(tmp_path, f"{point}=kill-parent@{passage}")
    assert await front.finish() == -signal.SIGKILL
    there = await stored_transactions(tmp_path)
    assert front.answered < there  # the transaction in hand was finished by the orphan


@pytest.mark.parametrize("answers", [1, 50, 333])
@pytest.mark.parametrize("victim", ["front", "committer"])
async def test_killed_at_any_moment(tmp_path: Path, victim: str, answers: int) -> None:
    front = await Front.start(tmp_path)
    killed = False
    async for answered in front.lines():
        if answered >= answers and not killed:
            killed = True
            os.kill(front.process.pid if victim == "front" else front.committer_pid, signal.SIGKILL)
    assert await front.process.wait() == (-signal.SIGKILL if victim == "front" else 3)
    there = await stored_transactions(tmp_path)
    assert front.answered <= there
    assert len(there) < CALLS


async def test_kills_in_a_row_lose_nothing(tmp_path: Path) -> None:
    answered: set[int] = set()
    for passage in (3, 9, 5):
        front = await Front.start(tmp_path, f"{AFTER}=kill@{passage}")
        await front.finish()
        answered |= front.answered
    store = await reopened(tmp_path)
    there = {int(key[:6]) for key, _ in await store.scan(PARTS, limit=10_000)}
    await store.aclose()
    assert answered <= there


async def test_a_new_daemon_waits_for_the_orphan_of_a_killed_one(tmp_path: Path) -> None:
    front = await Front.start(tmp_path)
    async for answered in front.lines():
        if answered == 20:
            os.kill(front.committer_pid, signal.SIGSTOP)
            front.process.kill()
    await front.process.wait()
    with pytest.raises(EnvironmentFault) as caught:
        await LmdbStore.open(tmp_path, TABLES, kind="test", schema_version=1, lock_wait_seconds=0.1)
    assert caught.value.reason == "DATA_FOLDER_LOCKED"
    waiting = asyncio.create_task(stored_transactions(tmp_path))
    os.kill(front.committer_pid, signal.SIGCONT)
    assert front.answered <= await waiting


async def test_without_a_fault_all_is_answered(tmp_path: Path) -> None:
    front = await Front.start(tmp_path)
    assert await front.finish() == 0
    assert front.answered == await stored_transactions(tmp_path) == set(range(CALLS))
