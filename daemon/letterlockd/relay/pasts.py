"""What the relay remembers of each gateway's store, to tell the gateway when it has gone back.

    open(generation, position) ──older than what is known──▶ told: the known generation
                               └─as new or newer───────────▶ known
    every frame(position) ─────▶ known; written down within a second

A gateway's store that was copied back would use message keys twice (I2), and cannot notice it by
itself. The relay has seen what came of the newer state, so it can. It learns two numbers, nothing
of messages (I3). What it heard in the last second before it was killed itself is forgotten.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from letterlockd.relay.tables import GATEWAYS
from letterlockd.store.port import Put, Store, StoreFull

__all__ = ["Pasts"]

_WRITE_SECONDS = 1.0
_ROW = struct.Struct(">QQQ")
"""Mailbox, generation, position. A row of before has the mailbox alone."""


class _Past(NamedTuple):
    generation: int
    position: int


class Pasts:
    """The newest state known of each gateway's store. Open with `Pasts.open`."""

    def __init__(
        self,
        store: Store,
        mailboxes: dict[str, int],
        known: dict[str, _Past],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.mailboxes = mailboxes
        self._store = store
        self._known = known
        self._changed: set[str] = set()
        self._sleep = sleep

    @classmethod
    async def open(cls, store: Store, gateway_ids: list[str]) -> Pasts:
        """Read what is known; a gateway that is new gets its mailbox."""
        mailboxes: dict[str, int] = {}
        known: dict[str, _Past] = {}
        for gateway_id in gateway_ids:
            record = await store.get(GATEWAYS, gateway_id.encode())
            if record is None:
                mailboxes[gateway_id] = await store.reserve("relay.slots", 1)
                row = mailboxes[gateway_id].to_bytes(8, "big")
                await store.commit([[Put(GATEWAYS, gateway_id.encode(), row)]])
            elif len(record.value) == _ROW.size:
                mailboxes[gateway_id], *past = _ROW.unpack(record.value)
                known[gateway_id] = _Past(*past)
            else:
                mailboxes[gateway_id] = int.from_bytes(record.value, "big")
        return cls(store, mailboxes, known)

    def opened(self, gateway_id: str, generation: int, position: int) -> int | None:
        """A stream opens. The generation that is known, if the gateway's store is older."""
        if not position:
            return None
        said, known = _Past(generation, position), self._known.get(gateway_id)
        if known is not None and said < known:
            return known.generation
        self._learn(gateway_id, said)
        return None

    def heard(self, gateway_id: str, position: int) -> None:
        """The gateway's store had come so far when it sent something."""
        known = self._known.get(gateway_id)
        if known is not None and position > known.position:
            self._learn(gateway_id, known._replace(position=position))

    async def run(self) -> None:
        """Write down what changed, now and then, until cancelled. Raises what the store raises."""
        while True:
            await self._sleep(_WRITE_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write down what changed."""
        changed, self._changed = self._changed, set()
        rows = {
            gateway_id: _ROW.pack(self.mailboxes[gateway_id], *self._known[gateway_id])
            for gateway_id in changed
        }
        try:
            await self._store.commit(
                [[Put(GATEWAYS, key.encode(), row)] for key, row in rows.items()]
            )
        except StoreFull:
            self._changed |= changed

    def _learn(self, gateway_id: str, past: _Past) -> None:
        if self._known.get(gateway_id) != past:
            self._known[gateway_id] = past
            self._changed.add(gateway_id)
