"""The sweeper: what is due dies, in bounded steps between other work (I4).

    sweep a step of each store ──more due?──▶ rest, again
             │ none
             ▼
    forget day keys that are over, sleep `interval_seconds`, again

A full disk ends a round early and the next one tries again: removals are let through there, so
sweeping is what ends the condition. A lost store ends the task, and with it the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from letterlockd.clock import Clock
from letterlockd.pace import STEP, Pace
from letterlockd.sealing.deletions import Deletions
from letterlockd.sealing.keyring import Keyring
from letterlockd.store.port import Store, StoreFull, Table

__all__ = ["Duty", "Sweeper"]


class Duty(NamedTuple):
    """A store to sweep, with its record of deletions, except the tables in `keep`, whose owners
    delete what is `due` there."""

    store: Store
    deletions: Deletions
    keep: frozenset[Table] = frozenset()


class Sweeper:
    """Sweeps `duties` and the caches of `keyrings` for as long as `run` runs.

    `limit_per_step` bounds one transaction, and so how long a commit may wait behind it.
    """

    def __init__(
        self,
        duties: Sequence[Duty],
        keyrings: Sequence[Keyring],
        clock: Clock,
        *,
        interval_seconds: float,
        limit_per_step: int = STEP,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._duties = duties
        self._keyrings = keyrings
        self._clock = clock
        self._interval = interval_seconds
        self._limit = limit_per_step
        self._sleep = sleep
        self._pace = Pace(clock, sleep)

    async def run(self) -> None:
        """Sweep until cancelled. Raises `StoreUnavailable` when a store is lost."""
        while True:
            await self.sweep_all()
            await self._sleep(self._interval)

    async def sweep_all(self) -> None:
        """One round: everything that is due now."""
        now_ms = self._clock.now_ms()
        for keyring in self._keyrings:
            keyring.forget_before(now_ms)
        for duty in self._duties:
            try:
                await self._perform(duty, now_ms)
            except StoreFull:
                continue

    async def _perform(self, duty: Duty, now_ms: int) -> None:
        more = True
        while more:
            self._pace.begin()
            swept = await duty.store.sweep(now_ms, limit=self._limit, keep=duty.keep)
            duty.deletions.note(swept.removed)
            if more := swept.more:
                await self._pace.rest()
        await duty.deletions.write(now_ms)
