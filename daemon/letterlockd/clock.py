"""The only reader of time. Everything else is handed a `Clock` or a number.

    LETTERLOCK_FAILPOINTS_CLOCK=/some/file

For fault tests: the wall clock is then off by the milliseconds that stand in that file, read anew
at each reading. `role` says loudly at start that it is set.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Protocol

__all__ = ["OFFSET_VARIABLE", "Clock", "SystemClock", "system_clock"]

OFFSET_VARIABLE = "LETTERLOCK_FAILPOINTS_CLOCK"


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
