"""What the gateway has to say when a message dies: the sweeper cannot, it only deletes.

    outbox row due   ──▶ EXPIRED, unless the relay has it and will answer
    held row due     ──▶ EXPIRED, unless it is being released
    message row due  ──▶ EXPIRED if it was never delivered; then deleted

`KEPT` are the tables that the sweeper leaves to this module.
"""

from __future__ import annotations

import asyncio

from letterlock.v1 import errors_pb2, messaging_pb2

from letterlockd.clock import Clock
from letterlockd.gateway.held import HELD_VERSION, Held
from letterlockd.gateway.outbox import OutboxRow
from letterlockd.gateway.progress import Advance, Progress
from letterlockd.gateway.sending import Sending
from letterlockd.gateway.tables import HELD, MESSAGES, OUTBOX
from letterlockd.model.ids import ConversationId, MessageId
from letterlockd.records.v1.gateway_pb2 import MessageRecord, OutboxRecord
from letterlockd.store.port import Check, Delete, Record, Store, StoreFull

__all__ = ["KEPT", "Expiry"]

KEPT = frozenset({OUTBOX, MESSAGES, HELD})

_MAX_DUE = 4_096
"""More than can be at the relay, so that rows which wait for its answer do not hide others."""

_MAX_HELD_DUE = 256
"""A commit each: more would keep the other tables waiting."""

_UNDELIVERED = (messaging_pb2.MESSAGE_STATUS_ACCEPTED, messaging_pb2.MESSAGE_STATUS_SENT)


class Expiry:
    """Looks for what is due, every `seconds`."""

    def __init__(
        self,
        store: Store,
        sending: Sending,
        progress: Progress,
        held: Held,
        clock: Clock,
        *,
        seconds: float,
    ) -> None:
        self._store = store
        self._sending = sending
        self._progress = progress
        self._held = held
        self._clock = clock
        self._seconds = seconds

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._seconds)

    async def look(self) -> None:
        """Settle what is due now."""
        now_ms = self._clock.now_ms()
        for key, record in await self._store.due(OUTBOX, now_ms, limit=_MAX_DUE):
            row = OutboxRow(int.from_bytes(key, "big"), OutboxRecord.FromString(record.value))
            self._sending.expire(row)
        for key, record in await self._store.due(HELD, now_ms, limit=_MAX_HELD_DUE):
            await self._expire_held(key, OutboxRecord.FromString(record.value))
        while await self._bury(now_ms):
            pass

    async def _expire_held(self, key: bytes, record: OutboxRecord) -> None:
        news = _expired(record.message_id, record.conversation, messaging_pb2.HOP_GATEWAY)
        gone = (Check(HELD, key, HELD_VERSION), Delete(HELD, key))
        try:
            if await self._progress.record_with([news], gone) is None:
                self._held.removed()
        except StoreFull:
            return  # the next look tries again

    async def _bury(self, now_ms: int) -> bool:
        """A step of the message records that are due; True when there may be more."""
        due = await self._store.due(MESSAGES, now_ms, limit=_MAX_DUE)
        if not due:
            return False
        await self._tell([entry for entry in due if _undelivered(entry[1])])
        try:
            await self._store.commit([[Delete(MESSAGES, key) for key, _ in due]])
        except StoreFull:
            return False  # the next look tries again
        return len(due) == _MAX_DUE

    async def _tell(self, due: list[tuple[bytes, Record]]) -> None:
        advances = []
        for key, row in due:
            conversation = MessageRecord.FromString(row.value).conversation
            advances.append(_expired(key, conversation, messaging_pb2.HOP_RELAY))
        if advances:
            told = asyncio.Event()
            self._progress.record(advances, (), told.set)
            await told.wait()


def _expired(message_id: bytes, conversation: bytes, hop: messaging_pb2.Hop.ValueType) -> Advance:
    why = messaging_pb2.Failure(hop=hop, reason=errors_pb2.ERROR_REASON_EXPIRED, retryable=True)
    expired = messaging_pb2.MESSAGE_STATUS_EXPIRED
    return Advance(MessageId(message_id), expired, ConversationId(conversation), why)


def _undelivered(row: Record) -> bool:
    return MessageRecord.FromString(row.value).status in _UNDELIVERED
