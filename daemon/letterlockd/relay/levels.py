"""How full each mailbox is, counted in memory so that accepting a message costs no extra write.

A mailbox is counted from its rows when it is first needed after a start; what is written or
deleted while that goes on may be missed. The bound it serves is a bound on disk space, so being
off by what was in flight does no harm; a restart or a long absence counts anew.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from letterlockd.relay.bounded import RecentlyUsed
from letterlockd.relay.tables import MAILBOXES, mailbox_prefix
from letterlockd.relay.turns import Turns
from letterlockd.store.port import Store

__all__ = ["Levels"]

_PAGE = 500


@dataclass(slots=True)
class _Level:
    items: int = 0
    size: int = 0


class Levels:
    """Items and bytes in mailboxes."""

    def __init__(self, store: Store, cached: int) -> None:
        self._store = store
        self._levels: RecentlyUsed[int, _Level] = RecentlyUsed(cached)
        self._turns: Turns[int] = Turns()

    async def know(self, mailboxes: Collection[int]) -> None:
        """Count those of the mailboxes that are not known yet."""
        for mailbox in mailboxes:
            if mailbox not in self._levels:
                async with self._turns.of(mailbox):
                    if mailbox not in self._levels:
                        self._levels.put(mailbox, await self._counted(mailbox))

    def fits(self, mailbox: int, size: int, *, max_items: int, max_bytes: int) -> bool:
        """Whether one more item of `size` bytes stays within the bounds."""
        level = self._levels.get(mailbox)
        return level is None or (level.items < max_items and level.size + size <= max_bytes)

    def added(self, mailbox: int, size: int, items: int = 1) -> None:
        """Items are on their way into the mailbox; negative when they left or came to nothing."""
        level = self._levels.get(mailbox)
        if level is not None:
            level.items = max(0, level.items + items)
            level.size = max(0, level.size + size)

    async def _counted(self, mailbox: int) -> _Level:
        prefix, level, after = mailbox_prefix(mailbox), _Level(), b""
        while True:
            rows = await self._store.scan(MAILBOXES, prefix=prefix, after=after, limit=_PAGE)
            for _, record in rows:
                level.items += 1
                level.size += len(record.value)
            if len(rows) < _PAGE:
                return level
            after = rows[-1][0]
