from __future__ import annotations

import asyncio

import pytest
from letterlockd.store.lmdb.gate import Gate

from tests.harness.clock import settle


async def _blocked(gate: Gate, commits: int, size: int) -> asyncio.Task[None]:
    task = asyncio.create_task(gate.enter(commits, size))
    await settle()
    assert not task.done()
    return task


async def test_both_bounds_hold() -> None:
    gate = Gate(max_commits=3, max_bytes=100)
    await gate.enter(1, 90)
    by_bytes = await _blocked(gate, 1, 11)
    gate.leave(1, 90)
    await by_bytes
    await gate.enter(2, 0)
    by_count = await _blocked(gate, 1, 0)
    gate.leave(1, 11)
    await by_count


async def test_a_call_larger_than_the_bounds_passes_alone() -> None:
    gate = Gate(max_commits=3, max_bytes=100)
    await gate.enter(1, 1)
    large = await _blocked(gate, 50, 5_000)
    gate.leave(1, 1)
    await large
    small = await _blocked(gate, 1, 1)
    gate.leave(50, 5_000)
    await small


async def test_first_come_first_served() -> None:
    gate = Gate(max_commits=2, max_bytes=100)
    await gate.enter(1, 0)
    large = await _blocked(gate, 2, 0)
    small = await _blocked(gate, 1, 0)  # would fit, but may not overtake
    gate.leave(1, 0)
    await large
    await settle()
    assert not small.done()
    gate.leave(2, 0)
    await small


async def test_a_cancelled_wait_lets_those_behind_it_in() -> None:
    gate = Gate(max_commits=2, max_bytes=100)
    await gate.enter(1, 0)
    large = await _blocked(gate, 2, 0)
    small = await _blocked(gate, 1, 0)
    large.cancel()
    await asyncio.wait([large])
    await small


async def test_a_wait_cancelled_as_it_is_let_in_gives_its_room_back() -> None:
    gate = Gate(max_commits=1, max_bytes=100)
    await gate.enter(1, 0)
    second = await _blocked(gate, 1, 0)
    third = await _blocked(gate, 1, 0)
    gate.leave(1, 0)
    second.cancel()
    await asyncio.wait([second])
    await third


async def test_break_down_fails_all_who_wait() -> None:
    gate = Gate(max_commits=1, max_bytes=100)
    await gate.enter(1, 0)
    waiting = [await _blocked(gate, 1, 0) for _ in range(3)]
    gate.break_down(OSError("gone"))
    for task in waiting:
        with pytest.raises(OSError, match="gone"):
            await task
