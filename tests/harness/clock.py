"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable


class FakeClock:
    """A `Clock`, and the `sleep` that goes with it: sleepers wake when `advance` passes them."""

    def __init__(self, now_ms: int = 1_800_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = 0
        self._order = itertools.count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return self._now_ms

    def now_ns(self) -> int:
        return self._now_ms * 1_000_000

    def monotonic(self) -> float:
        return self._monotonic_ms / 1_000

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.get_running_loop().create_future()
        at_ms = self._monotonic_ms + int(seconds * 1_000)
        heapq.heappush(self._sleepers, (at_ms, next(self._order), wake))
        await wake

    async def advance(self, milliseconds: int) -> None:
        """Move both clocks on, wake who is due, and let all that can run, run."""
        self._now_ms += milliseconds
        self._monotonic_ms += milliseconds
        while self._sleepers and self._sleepers[0][0] <= self._monotonic_ms:
            _, _, wake = heapq.heappop(self._sleepers)
            if not wake.done():
                wake.set_result(None)
        await settle()

    def set_wall(self, now_ms: int) -> None:
        """Jump the wall clock alone, either way, as an operator or NTP may."""
        self._now_ms = now_ms


async def settle(turns: int = 20) -> None:
    """Let tasks run that wait for nothing but the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let tasks run until the condition is true; the test's own time-out is the bound."""
    while not condition():
        await settle(1)
