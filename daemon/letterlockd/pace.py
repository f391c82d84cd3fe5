"""How fast what is due is removed: bounded steps, with rests that leave the store to others.

A step and the messages beside it share one writer. A step may be in front of each of them, so its
size bounds what a message waits; the rest after it, as long as a multiple of the step took, bounds
how many messages wait at all. Both together: `python -m bench.sweep`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from letterlockd.clock import Clock

__all__ = ["STEP", "Pace"]

STEP = 250
"""Records removed by one transaction: some 2 ms, about what a commit takes by itself. More lets
messages wait longer, fewer pays a disk synchronisation for too little."""

_REST = 3.0
"""A quarter of the writer's time: some 25,000 removals a second, which is still several times the
records that a daemon at full speed makes. Without rests every message would meet a step."""


class Pace:
    """Measures steps, and rests between them."""

    def __init__(
        self, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._begun = clock.monotonic()

    def begin(self) -> None:
        """A step begins."""
        self._begun = self._clock.monotonic()

    async def rest(self) -> None:
        """The step is done; returns when the next one may begin."""
        took = self._clock.monotonic() - self._begun
        await (self._sleep(took * _REST) if took > 0 else asyncio.sleep(0))
