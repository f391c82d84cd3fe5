"""The sweeper: what is due dies, in bounded steps between other work (I4).

    sweep a step of each store ──more due?──▶ again at once
             │ none
             ▼
    forget day keys that are over, sleep `interval_seconds`, again

A full disk ends a round early and the next one tries again: removals are let through there, so
sweeping is what ends the condition. A lost store ends the task, and with it the daemon.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from letterlockd.clock import Clock
from letterlockd.sealing.keyring import Keyring
from letterlockd.store.port import Store, StoreFull

__all__ = ["Sweeper"]


class Sweeper:
    """Sweeps `stores` and the caches of `keyrings` for as long as `run` runs.

    `limit_per_step` bounds one transaction, and so how long a commit may wait behind it.
    `removed` counts by table name, for metrics.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        keyrings: Sequence[Keyring],
        clock: Clock,
        *,
        interval_seconds: float,
        limit_per_step: int = 1_000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._stores = stores
        self._keyrings = keyrings
        self._clock = clock
        self._interval = interval_seconds
        self._limit = limit_per_step
        self._sleep = sleep
        self.removed: Counter[str] = Counter()

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
        for store in self._stores:
            try:
                await self._sweep_store(store, now_ms)
            except StoreFull:
                continue

    async def _sweep_store(self, store: Store, now_ms: int) -> None:
        more = True
        while more:
            swept = await store.sweep(now_ms, limit=self._limit)
            self.removed.update(dict(swept.removed))
            more = swept.more
            await asyncio.sleep(0)
