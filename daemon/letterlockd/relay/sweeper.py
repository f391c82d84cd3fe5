"""What dies in the relay: expired rows, and what removed devices left behind.

    every second: expired mailbox rows ──▶ journal (EXPIRED receipts) ──▶ then every other table
                  codes of verifications that are used or over, where the sender still has them
    at a removal, and at start: purges ──▶ envelopes (GONE receipts), pre-keys ──▶ the purge itself

Mailbox rows go first, because the receipt of a message for several devices is decided by its row
in `submitted`, which expires at the same time. Every step is bounded, and may be repeated after a
crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from letterlock.relay.v1.mailbox_pb2 import Receipt

from letterlockd.clock import Clock
from letterlockd.pace import Pace
from letterlockd.records.v1.relay_pb2 import Purge
from letterlockd.relay.items import read_row
from letterlockd.relay.journal import Journal
from letterlockd.relay.receipts import Died, Kind
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.switchboard import Switchboard
from letterlockd.relay.tables import MAILBOXES, PRE_KEYS, PURGES, item_id_of, mailbox_prefix
from letterlockd.relay.verification import Verifications
from letterlockd.sealing.deletions import Deletions
from letterlockd.store.port import Delete, Record, Store, StoreFull

__all__ = ["Sweeper"]

_KEPT = frozenset((MAILBOXES,))
_MAILBOX_BYTES = 8


class Sweeper:
    """Clears away. `run` is its task."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        switchboard: Switchboard,
        deletions: Deletions,
        verifications: Verifications,
        clock: Clock,
        settings: RelaySettings,
    ) -> None:
        self._store = store
        self._journal = journal
        self._switchboard = switchboard
        self._deletions = deletions
        self._verifications = verifications
        self._clock = clock
        self._settings = settings
        self._pace = Pace(clock)
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There is something to purge."""
        self._wake.set()

    async def run(self) -> None:
        """Sweep until cancelled. Raises `StoreUnavailable` when the store is lost."""
        while True:
            self._wake.clear()
            try:
                await self.purge()
                await self.expire()
            except StoreFull:
                pass  # what could be removed was; the rest waits for the next round
            await self._verifications.clear()
            try:
                async with asyncio.timeout(self._settings.sweep_seconds):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def expire(self) -> None:
        """Remove everything that is due now."""
        now_ms = self._clock.now_ms()
        while due := await self._due(now_ms):
            await self._bury(Receipt.KIND_EXPIRED, [key for key, _ in due])
            self._deletions.note([(MAILBOXES.name, len(due))])
            await self._pace.rest()
        while await self._sweep(now_ms):
            await self._pace.rest()
        await self._deletions.write(now_ms)

    async def _due(self, now_ms: int) -> list[tuple[bytes, Record]]:
        self._pace.begin()
        return await self._store.due(MAILBOXES, now_ms, limit=self._settings.sweep_records)

    async def _sweep(self, now_ms: int) -> bool:
        """A step; True when there may be more."""
        self._pace.begin()
        limit = self._settings.sweep_records
        swept = await self._store.sweep(now_ms, limit=limit, keep=_KEPT)
        self._deletions.note(swept.removed)
        return swept.more

    async def purge(self) -> None:
        """Finish all removals."""
        while found := await self._store.scan(PURGES, limit=1):
            key, record = found[0]
            purge = Purge.FromString(record.value)
            await self._purge_mailbox(purge)
            await self._purge_pre_keys(purge.slot)
            await self._store.commit([[Delete(PURGES, key)]])

    async def _purge_mailbox(self, purge: Purge) -> None:
        after, limit = b"", self._settings.sweep_records
        prefix = mailbox_prefix(purge.mailbox)
        while rows := await self._store.scan(MAILBOXES, prefix=prefix, after=after, limit=limit):
            after = rows[-1][0]
            keys = [key for key, record in rows if _concerns(purge, key, record)]
            if keys:
                await self._bury(Receipt.KIND_GONE, keys)

    async def _purge_pre_keys(self, slot: int) -> None:
        limit = self._settings.sweep_records
        while rows := await self._store.scan(PRE_KEYS, prefix=mailbox_prefix(slot), limit=limit):
            await self._store.commit([[Delete(PRE_KEYS, key) for key, _ in rows]])

    async def _bury(self, kind: Kind, keys: Sequence[bytes]) -> None:
        done = asyncio.get_running_loop().create_future()
        rows = [(int.from_bytes(key[:_MAILBOX_BYTES], "big"), item_id_of(key)) for key in keys]
        await self._journal.room()
        self._journal.settle(
            Died(kind, rows, lambda: done.set_result(None), self._switchboard.forgive)
        )
        await done


def _concerns(purge: Purge, key: bytes, record: Record) -> bool:
    if purge.below_item_id and item_id_of(key) >= purge.below_item_id:
        return False
    return not purge.recipient or read_row(record.value).recipient == purge.recipient
