"""What the gateway has to say when a message dies: the sweeper cannot, it only deletes.

    outbox row due   ──▶ EXPIRED, unless the relay has it and will answer
    held row due     ──▶ EXPIRED, unless it is being released
    message row due  ──▶ EXPIRED if it was never delivered; then deleted
    asked row due    ──▶ the business hears that the message has not come again; then deleted

`KEPT` are the tables that the sweeper leaves to this module.
"""

from __future__ import annotations

import asyncio

from letterlock.v1 import errors_pb2, messaging_pb2

from letterlockd.clock import Clock
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.held import HELD_VERSION, Held
from letterlockd.gateway.inbox import Inbox
from letterlockd.gateway.news import Advance
from letterlockd.gateway.outbox import OutboxRow
from letterlockd.gateway.progress import Progress
from letterlockd.gateway.sending import Sending
from letterlockd.gateway.tables import ASKED, HELD, MESSAGES, OUTBOX, account_of, pseudonym_part
from letterlockd.model.ids import CONVERSATION_BYTES, ConversationId, MessageId
from letterlockd.pace import STEP, Pace
from letterlockd.records.v1.gateway_pb2 import AskedRecord, MessageRecord, OutboxRecord
from letterlockd.records.v1.inbox_pb2 import StoredEvent, StoredUndecryptable
from letterlockd.sealing.deletions import Deletions
from letterlockd.sealing.keyring import DAY_MS
from letterlockd.store.port import Check, Delete, Record, Store, StoreFull

__all__ = ["KEPT", "Expiry"]

KEPT = frozenset({OUTBOX, MESSAGES, HELD, ASKED})

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
        inbox: Inbox,
        clock: Clock,
        counters: Counters,
        deletions: Deletions,
        *,
        seconds: float,
    ) -> None:
        self._store = store
        self._sending = sending
        self._progress = progress
        self._held = held
        self._inbox = inbox
        self._clock = clock
        self._counters = counters
        self._deletions = deletions
        self._seconds = seconds
        self._pace = Pace(clock)

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
            if self._sending.expire(row):
                self._deletions.note([(OUTBOX.name, 1)])
        for key, record in await self._store.due(HELD, now_ms, limit=_MAX_HELD_DUE):
            await self._expire_held(key, OutboxRecord.FromString(record.value))
        while await self._bury(now_ms):
            await self._pace.rest()
        for key, record in await self._store.due(ASKED, now_ms, limit=_MAX_DUE):
            await self._give_up(key, record, now_ms)

    async def _give_up(self, key: bytes, row: Record, now_ms: int) -> None:
        """Tell that a message has not come again, for the day after its retention at most."""
        asked = AskedRecord.FromString(row.value)
        conversation = ConversationId(key[:CONVERSATION_BYTES])
        lost = StoredUndecryptable(
            device_id=asked.device_id,
            message_id=key[CONVERSATION_BYTES:],
            reason=messaging_pb2.UndecryptableMessage.REASON_NOT_RESENT,
        )
        event = StoredEvent(
            time_ms=now_ms, pseudonym=pseudonym_part(conversation), undecryptable=lost
        )
        account = account_of(conversation)
        staged = self._inbox.stage(account, [event], expires_at_ms=now_ms + DAY_MS)
        still_asked = Check(ASKED, key, row.version)
        try:
            (outcome,) = await self._store.commit(
                [[still_asked, Delete(ASKED, key), *staged.changes]]
            )
        except StoreFull:
            staged.aborted()  # the next look tries again
            return
        if outcome is not None:
            staged.aborted()  # it came in the last moment
            return
        staged.committed()
        self._counters.not_healed += 1
        self._deletions.note([(ASKED.name, 1)])

    async def _expire_held(self, key: bytes, record: OutboxRecord) -> None:
        news = _expired(record.message_id, record.conversation, messaging_pb2.HOP_GATEWAY)
        gone = (Check(HELD, key, HELD_VERSION), Delete(HELD, key))
        try:
            if await self._progress.record_with([news], gone) is None:
                self._held.removed()
                self._deletions.note([(HELD.name, 1)])
        except StoreFull:
            return  # the next look tries again

    async def _bury(self, now_ms: int) -> bool:
        """A step of the message records that are due; True when there may be more."""
        self._pace.begin()
        due = await self._store.due(MESSAGES, now_ms, limit=STEP)
        if not due:
            return False
        await self._tell(due)
        try:
            await self._store.commit([[Delete(MESSAGES, key) for key, _ in due]])
        except StoreFull:
            return False  # the next look tries again
        self._deletions.note([(MESSAGES.name, len(due))])
        return len(due) == STEP

    async def _tell(self, due: list[tuple[bytes, Record]]) -> None:
        """Say of those that were never delivered that they have expired."""
        advances = []
        for key, row in due:
            record = MessageRecord.FromString(row.value)
            if record.status in _UNDELIVERED:
                advances.append(_expired(key, record.conversation, messaging_pb2.HOP_RELAY))
        if advances:
            told = asyncio.Event()
            self._progress.record(advances, (), told.set)
            await told.wait()


def _expired(message_id: bytes, conversation: bytes, hop: messaging_pb2.Hop.ValueType) -> Advance:
    why = messaging_pb2.Failure(hop=hop, reason=errors_pb2.ERROR_REASON_EXPIRED, retryable=True)
    expired = messaging_pb2.MESSAGE_STATUS_EXPIRED
    return Advance(MessageId(message_id), expired, ConversationId(conversation), why)
