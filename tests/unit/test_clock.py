"""The clock that destroys things does not believe every leap."""

from __future__ import annotations

import pytest
from letterlockd.clock import HOLD_SECONDS, LEAP_MS, WaryClock

from tests.harness.clock import FakeClock

START_MS = 1_800_000_000_000
FAR_MS = START_MS + 40 * LEAP_MS


async def test_a_leap_is_held_for_an_hour_and_then_believed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock(START_MS)
    wary = WaryClock(clock)
    clock.set_wall(FAR_MS)
    assert wary.now_ms() == START_MS
    await clock.advance(int(HOLD_SECONDS * 1_000) - 1)
    assert wary.now_ms() == START_MS + int(HOLD_SECONDS * 1_000) - 1
    await clock.advance(1)
    assert wary.now_ms() == clock.now_ms()
    assert [record.getMessage() for record in caplog.records] == ["clock_leapt_ahead"]


async def test_a_leap_that_is_taken_back_changes_nothing() -> None:
    clock = FakeClock(START_MS)
    wary = WaryClock(clock)
    clock.set_wall(FAR_MS)
    assert wary.now_ms() == START_MS
    clock.set_wall(START_MS)
    await clock.advance(int(HOLD_SECONDS * 1_000))
    assert wary.now_ms() == clock.now_ms()
    clock.set_wall(FAR_MS)
    assert wary.now_ms() < FAR_MS


async def test_time_that_passes_and_small_steps_are_believed_and_so_is_going_back() -> None:
    clock = FakeClock(START_MS)
    wary = WaryClock(clock)
    await clock.advance(3 * LEAP_MS)
    assert wary.now_ms() == clock.now_ms()
    for step_ms in (LEAP_MS, -40 * LEAP_MS, 40 * LEAP_MS):
        clock.set_wall(clock.now_ms() + step_ms)
        assert wary.now_ms() == clock.now_ms()


async def test_a_leap_while_the_process_was_down_is_held_too() -> None:
    clock = FakeClock(FAR_MS)
    assert WaryClock(clock, since_ms=START_MS).now_ms() == START_MS
    assert WaryClock(clock).now_ms() == FAR_MS
