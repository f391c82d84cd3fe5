"""Accepted messages that wait until the business has confirmed a user's changed identity key.

    outbox row ──hold──▶ on disk alone, in order ──release──▶ outbox, encrypted to the checked key
                                  └── its time is over: EXPIRED (`expiry`)

Only what was accepted before the change was noticed comes here; from then on new messages to that
user are refused. A held row is an outbox row without ciphertext: its payload is sealed under its
day key. Nothing of it is in memory but how many there are. Knows no relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from letterlock.v1 import errors_pb2, messaging_pb2

from letterlockd.errors import Conflict, LetterlockError
from letterlockd.gateway.draft import Draft, Work
from letterlockd.gateway.news import Advance
from letterlockd.gateway.numbers import Number
from letterlockd.gateway.outbox import Outbox, OutboxRow
from letterlockd.gateway.outgoing import submission
from letterlockd.gateway.sending import failure
from letterlockd.gateway.tables import HELD, held_key
from letterlockd.model.ids import ConversationId, MessageId
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.records.v1.gateway_pb2 import OutboxRecord
from letterlockd.sealing.keyring import DAY_MS
from letterlockd.store.port import Check, CommitConflict, Delete, Put, Store

__all__ = ["HELD_VERSION", "Held", "HeldRow", "ReleaseWork", "mismatch"]

HELD_VERSION = 1
"""Rows are written once: one that is there has this version."""

HeldRow = tuple[bytes, OutboxRecord]
"""Its key, which sorts by acceptance within the conversation, and what it holds."""


class Held:
    """Table 24. At most `limit` rows in all: what would come on top fails. Open with `open`."""

    def __init__(self, store: Store, count: int, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._leaving: set[bytes] = set()
        self.count = count

    @classmethod
    async def open(cls, store: Store, limit: int) -> Held:
        """What was held when the process ended."""
        return cls(store, await store.count(HELD), limit)

    def added(self) -> None:
        """A row is durable."""
        self.count += 1

    def removed(self, count: int = 1) -> None:
        """So many rows are deleted."""
        self.count -= count

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be held."""
        return self.count >= self._limit

    def put(self, row: OutboxRow) -> Put:
        """The write that holds an outbox row."""
        record = OutboxRecord()
        record.CopyFrom(row.record)
        record.ClearField("submission")
        key = held_key(ConversationId(record.conversation), row.sequence)
        return Put(HELD, key, record.SerializeToString(), record.expire_ms)

    def claim(self, key: bytes) -> bool:
        """Take a row for release; False when a call beside this one, or one whose caller has left,
        is at it: twice in one turn, both would find it there."""
        if key in self._leaving:
            return False
        self._leaving.add(key)
        return True

    def give_back(self, key: bytes) -> None:
        """The row is released, or stays."""
        self._leaving.discard(key)

    async def page(
        self, conversation: ConversationId, *, after: bytes, limit: int
    ) -> list[HeldRow]:
        """The next rows of a conversation, in the order of acceptance."""
        found = await self._store.scan(HELD, prefix=conversation, after=after, limit=limit)
        return [(key, OutboxRecord.FromString(row.value)) for key, row in found]


class ReleaseWork(Work):
    """Encrypts a held message, which is claimed, to the key that was checked. `done`: whether it
    left; False: it was gone before, or failed. Raises the reason when it has to wait on."""

    flow = "release"

    __slots__ = ("_gone", "_held", "_identity_key", "_left", "_outbox", "_row", "_why", "done")

    def __init__(
        self,
        number: Number,
        row: HeldRow,
        day_key: bytes,
        identity_key: bytes,
        *,
        held: Held,
        outbox: Outbox,
    ) -> None:
        record = row[1]
        conversation = ConversationId(record.conversation)
        super().__init__(number, conversation, None, record.expire_ms // DAY_MS, day_key)
        self._row = row
        self._identity_key = identity_key
        self._held = held
        self._outbox = outbox
        self._gone = False
        self._left = False
        self._why: LetterlockError | None = None
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def plan(self, task: jobs.ConversationTask, known: bool) -> int:
        """Encrypt the sealed payload."""
        if self._gone or not known:
            self._finish()
            return 0
        record = self._row[1]
        step = task.steps.add().encrypt
        step.sealed_payload = record.sealed_payload
        step.content_context = self.conversation + record.message_id
        step.confirmed_identity_key = self._identity_key
        return 1

    def settle(self, results: Sequence[jobs.StepResult], draft: Draft) -> None:
        """Move it to the outbox. Without a session to send with it goes there as it is, and is
        encrypted with fresh bundles."""
        self._left, self._why = False, None
        (key, record), result = self._row, results[0]
        name = result.failure.name
        if name == "IdentityUnconfirmed":
            self._why = mismatch()
            return
        draft.write(Check(HELD, key, HELD_VERSION), Delete(HELD, key))
        if result.HasField("failure") and name != "SessionNotFound":
            why = failure(messaging_pb2.HOP_GATEWAY, errors_pb2.ERROR_REASON_BAD_PRE_KEYS)
            failed, message_id = messaging_pb2.MESSAGE_STATUS_FAILED, MessageId(record.message_id)
            draft.advances.append(Advance(message_id, failed, self.conversation, why))
            return
        self._left = True
        released = OutboxRecord()
        released.CopyFrom(record)
        released.repairs = 0
        released.unencrypted = name == "SessionNotFound"
        released.submission = submission(
            MessageId(record.message_id),
            self.number.account,
            draft.user,
            record.expire_ms,
            result.encrypted.envelopes,
        )
        draft.send(self._outbox, released)

    def committed(self) -> None:
        """It is in the outbox, or failed."""
        if self._why is None:
            self._held.removed()
        self._finish()

    def failed(self, error: LetterlockError) -> bool:
        """It stays held: the business may confirm again."""
        self._why, self._left = error, False
        self._finish()
        return False

    def owns(self, conflict: CommitConflict) -> bool:
        """Whether the row is gone: expired, or released by a call beside this one."""
        return conflict.table == HELD and conflict.key == self._row[0]

    async def conflicted(self, conflict: CommitConflict) -> None:
        """Nothing is left to do."""
        self._gone = True

    def _finish(self) -> None:
        self._held.give_back(self._row[0])
        if self.done.done():  # the caller may have left
            return
        if self._why is not None:
            self.done.set_exception(self._why)
        else:
            self.done.set_result(self._left)


def mismatch() -> Conflict:
    """What was checked is not of the user's present identity key."""
    return Conflict(
        "the safety number is not that of the user's present identity key",
        reason="SAFETY_NUMBER_MISMATCH",
    )
