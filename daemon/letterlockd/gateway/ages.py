"""How long the oldest message waits, in each direction, as the stores have it.

    outbox: its first row ──▶ that message's last change       (not with the relay yet)
    inbox:  the lowest of all numbers' first rows ──▶ its time  (not acknowledged by its business)

Read anew every few seconds in steps, never on a message's way. That a business does not
acknowledge is its own affair: it is told here and makes no gateway unhealthy.
"""

from __future__ import annotations

import asyncio

from letterlockd.clock import Clock
from letterlockd.gateway.inbox import events_in
from letterlockd.gateway.inbox_rows import INBOX, row_key, sequence_of
from letterlockd.gateway.tables import MESSAGES, OUTBOX
from letterlockd.model.ids import ID_BYTES, AccountId
from letterlockd.records.v1.gateway_pb2 import MessageRecord, OutboxRecord
from letterlockd.store.port import Record, Store

__all__ = ["Ages"]

_LOOK_SECONDS = 5.0

_LAST_SEQUENCE = 2**64 - 1


class Ages:
    """Times in milliseconds since 1970; None: nothing waits."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._unsent_ms: int | None = None
        self._unacknowledged_ms: int | None = None

    @property
    def unsent_s(self) -> float:
        """Age of the oldest message that the relay does not have, in seconds; 0: none waits."""
        return self._age_s(self._unsent_ms)

    @property
    def unacknowledged_s(self) -> float:
        """Age of the oldest event that its business has not acknowledged, in seconds; 0: none."""
        return self._age_s(self._unacknowledged_ms)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Read both."""
        self._unsent_ms = await self._oldest_unsent()
        self._unacknowledged_ms = await self._oldest_event()

    def _age_s(self, since_ms: int | None) -> float:
        return 0.0 if since_ms is None else max(0, self._clock.now_ms() - since_ms) / 1_000

    async def _oldest_unsent(self) -> int | None:
        rows = await self._store.scan(OUTBOX, limit=1)
        if not rows:
            return None
        message_id = OutboxRecord.FromString(rows[0][1].value).message_id
        row = await self._store.get(MESSAGES, message_id)
        # Its last change and not its acceptance: what is sent again was accepted long ago.
        return None if row is None else MessageRecord.FromString(row.value).update_ms

    async def _oldest_event(self) -> int | None:
        """Sequence numbers ascend over all numbers, so only the row with the lowest is opened."""
        oldest: tuple[int, Record] | None = None
        after = b""
        while rows := await self._store.scan(INBOX, after=after, limit=1):
            key, record = rows[0]
            if oldest is None or sequence_of(key) < oldest[0]:
                oldest = sequence_of(key), record
            after = row_key(AccountId(key[:ID_BYTES]), _LAST_SEQUENCE)
            await asyncio.sleep(0)
        return None if oldest is None else events_in(oldest[1].value)[0].time_ms
