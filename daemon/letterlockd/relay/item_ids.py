"""Item ids: ascending over the whole relay and over restarts, handed out from reserved blocks.

The `journal` commits batches one after the other, and an item's id is drawn when its batch is the
next one. So ids and commits have one order, and a reader of a mailbox that has seen an id will
never find a smaller one later.
"""

from __future__ import annotations

import asyncio

from letterlockd.store.port import Store

__all__ = ["ItemIds"]

_BLOCK = 100_000


class ItemIds:
    """The relay's next item ids."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = 0
        self._end = 0
        self._lock = asyncio.Lock()

    @property
    def next_id(self) -> int:
        """The id that `take` will give next, if the block still has one: every id given so far is
        smaller."""
        return self._next

    async def ensure(self, count: int) -> None:
        """Make sure that `take` can give `count` ids until the caller next awaits something."""
        while self._end - self._next < count:
            async with self._lock:
                if self._end - self._next < count:
                    size = max(_BLOCK, count)
                    self._next = await self._store.reserve("relay.items", size)
                    self._end = self._next + size

    def take(self, count: int = 1) -> int:
        """The first of `count` consecutive ids; see `ensure`."""
        if self._end - self._next < count:
            raise RuntimeError("item ids were not ensured")
        first = self._next
        self._next += count
        return first

    def can_take(self, count: int) -> bool:
        """Whether `take(count)` works now."""
        return self._end - self._next >= count
