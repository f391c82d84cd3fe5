"""The only reader of time. Everything else is handed a `Clock` or a number.

    LETTERLOCK_FAILPOINTS_CLOCK=/some/file

For fault tests: the wall clock is then off by the milliseconds that stand in that file, read anew
at each reading. `role` says loudly at start that it is set.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import Protocol

__all__ = ["OFFSET_VARIABLE", "Clock", "SystemClock", "WaryClock", "system_clock"]

OFFSET_VARIABLE = "LETTERLOCK_FAILPOINTS_CLOCK"

_log = logging.getLogger(__name__)

LEAP_MS = 86_400_000
"""A leap that is held back. Less would hold up a machine that slept; a day early is also what a day
key of the longest retention can bear: it lives 30 days."""

HOLD_SECONDS = 3_600.0
"""How long a leap must stand to be believed: time for NTP, or for an operator who sees the warning.
Longer would keep what is really over, after a machine was off for days."""


class Clock(Protocol):
    """Wall-clock milliseconds since 1970, and a monotonic second counter for intervals."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC; may jump either way with the machine's clock."""
        ...

    def now_ns(self) -> int:
        """The same in nanoseconds, for what takes less than a millisecond."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1_000_000

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()


class _JumpingClock(SystemClock):
    def __init__(self, path: str) -> None:
        self._path = path

    def now_ms(self) -> int:
        with contextlib.suppress(FileNotFoundError), open(self._path, encoding="ascii") as file:
            return super().now_ms() + int(file.read() or 0)
        return super().now_ms()


def system_clock() -> Clock:
    """The machine's clocks; in a fault test, with a wall clock that can be made to jump."""
    path = os.environ.get(OFFSET_VARIABLE)
    return SystemClock() if path is None else _JumpingClock(path)


class WaryClock:
    """The wall clock for what destroys: a leap ahead of more than a day is not believed at once.

        in step ──leap──▶ held: time goes on as before ──an hour later, still so──▶ in step
           ▲                       │ the clock came back
           └───────────────────────┘

    A clock that goes back is believed, and so is its return: then things are destroyed later, not
    earlier. `since_ms`: the last time that is known from before this start, or 0.
    """

    def __init__(self, clock: Clock, *, since_ms: int = 0) -> None:
        self._clock = clock
        self._wall_ms = since_ms or clock.now_ms()
        self._at = clock.monotonic()
        self._held_since: float | None = None

    def now_ms(self) -> int:
        """Milliseconds since 1970, without a leap that is held."""
        wall_ms, at = self._clock.now_ms(), self._clock.monotonic()
        expected_ms = self._wall_ms + int((at - self._at) * 1_000)
        if wall_ms > expected_ms + LEAP_MS and self._holds(at):
            return expected_ms
        self._held_since = None
        if wall_ms >= expected_ms:
            self._wall_ms, self._at = wall_ms, at
        return wall_ms

    def now_ns(self) -> int:
        """The same in nanoseconds."""
        return self.now_ms() * 1_000_000

    def monotonic(self) -> float:
        """The clock's."""
        return self._clock.monotonic()

    def _holds(self, at: float) -> bool:
        if self._held_since is None:
            self._held_since = at
            _log.warning("clock_leapt_ahead")
        return at - self._held_since < HOLD_SECONDS
