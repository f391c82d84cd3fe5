"""The only reader of time. Everything else is handed a `Clock` or a number."""

from __future__ import annotations

import time
from typing import Protocol


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
