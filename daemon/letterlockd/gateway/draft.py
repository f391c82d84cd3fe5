"""A turn's outcome in the making: what one conversation's works write, tell and send.

    works ──settle──▶ Draft ──▶ one Commit ──▶ committed / aborted

Everything that a turn causes stands in one transaction (I1): conversation, outbox rows, statuses,
events and seen ids. Knows no store: it only collects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from letterlockd.errors import BrokenInvariant, LetterlockError
from letterlockd.gateway.inbox import Inbox, Staged
from letterlockd.gateway.news import Advance
from letterlockd.gateway.numbers import Number
from letterlockd.gateway.outbox import Outbox, OutboxRow
from letterlockd.gateway.progress import Progress
from letterlockd.gateway.recent import Written
from letterlockd.gateway.tables import CONVERSATIONS, MESSAGES, join_conversation, pseudonym_part
from letterlockd.model.ids import AccountId, ConversationId, MessageId
from letterlockd.records.v1.gateway_pb2 import MessageRecord, OutboxRecord
from letterlockd.records.v1.inbox_pb2 import StoredEvent, StoredIdentityChange
from letterlockd.records.v1.jobs_pb2 import ConversationTask, StepResult
from letterlockd.store.port import Check, CommitConflict, Delete, Put

__all__ = ["Draft", "Work"]


class Work(ABC):
    """One thing to do in a conversation. `user` is None when only the conversation's row knows.

    `flow` names the failpoints around its commit.
    """

    flow: ClassVar[str]

    __slots__ = ("conversation", "day", "day_key", "number", "user")

    def __init__(
        self,
        number: Number,
        conversation: ConversationId,
        user: AccountId | None,
        day: int,
        day_key: bytes,
    ) -> None:
        self.number = number
        self.conversation = conversation
        self.user = user
        self.day = day
        self.day_key = day_key

    @abstractmethod
    def plan(self, task: ConversationTask, known: bool) -> int:
        """Add steps to `task`; returns how many. `known`: there is a conversation, or an earlier
        work of this turn opens one. Without steps the work is refused already."""

    @abstractmethod
    def settle(self, results: Sequence[StepResult], draft: Draft) -> None:
        """Write what came of the steps into `draft`."""

    @abstractmethod
    def committed(self) -> None:
        """The draft is durable: what waits for this may be told."""

    @abstractmethod
    def failed(self, error: LetterlockError) -> bool:
        """The turn did not happen. True: try again later (keep the work at the front)."""

    def taken_back(self) -> None:
        """The turn did not happen, and begins again with the same works."""
        return  # most works have nothing to undo

    def owns(self, conflict: CommitConflict) -> bool:
        """Whether the failed check is this work's; most make none."""
        return False

    async def conflicted(self, conflict: CommitConflict) -> None:
        """A check of this work's failed; its next turn must take that into account."""
        raise BrokenInvariant("a work without checks has none that fails")


class Draft:
    """Collects for one conversation, from the row as read (`version`) to one commit."""

    def __init__(
        self,
        number: Number,
        conversation: ConversationId,
        user: AccountId,
        version: int,
        now_ms: int,
    ) -> None:
        self.number = number
        self.conversation = conversation
        self.user = user
        self.now_ms = now_ms
        self.advances: list[Advance] = []
        self._version = version
        self._operations: list[Put | Delete | Check] = []
        self._events: dict[int, list[StoredEvent]] = {}
        self._rows: list[OutboxRow] = []
        self._accepted: list[tuple[MessageId, Written]] = []
        self._staged: list[Staged] = []

    @property
    def accepted(self) -> list[MessageId]:
        """The messages whose acceptance is in here."""
        return [message_id for message_id, _ in self._accepted]

    def write(self, *operations: Put | Delete | Check) -> None:
        """Add to the transaction."""
        self._operations += operations

    def tell(self, event: StoredEvent, expires_at_ms: int) -> None:
        """Add an event for the business; time and user are filled in."""
        event.time_ms = self.now_ms
        event.pseudonym = pseudonym_part(self.conversation)
        self._events.setdefault(expires_at_ms, []).append(event)

    def tell_identity_change(self, expires_at_ms: int) -> None:
        """Add that the user's identity key is another one."""
        change = StoredIdentityChange(held=self.number.hold_identity_changes)
        self.tell(StoredEvent(identity_change=change), expires_at_ms)

    def accept(self, message_id: MessageId, record: MessageRecord, expires_at_ms: int) -> None:
        """Write a message's first status record, which nobody may change any more."""
        value = record.SerializeToString()
        self._operations.append(Put(MESSAGES, message_id, value, expires_at_ms))
        self._accepted.append((message_id, Written(record, expires_at_ms)))

    def send(self, outbox: Outbox, record: OutboxRecord) -> OutboxRow:
        """Put a message into the outbox."""
        row = outbox.stage(record)
        self._rows.append(row)
        self._operations.append(row.put())
        return row

    def finish(self, inbox: Inbox, sealed_record: bytes) -> list[Put | Delete | Check]:
        """The whole transaction; empty when there is nothing to write."""
        for expires_at_ms, events in self._events.items():
            staged = inbox.stage(self.number.account, events, expires_at_ms=expires_at_ms)
            self._staged.append(staged)
            self._operations += staged.changes
        if sealed_record:
            row = join_conversation(self.user, sealed_record)
            self._operations += (
                Check(CONVERSATIONS, self.conversation, self._version),
                Put(CONVERSATIONS, self.conversation, row),
            )
        return self._operations

    def committed(self, outbox: Outbox, progress: Progress, now_ms: int) -> None:
        """The transaction is durable."""
        for message_id, written in self._accepted:
            progress.accepted(message_id, written, now_ms)
        for staged in self._staged:
            staged.committed()
        for row in self._rows:
            outbox.committed(row)

    def aborted(self, outbox: Outbox) -> None:
        """The transaction did not happen."""
        for staged in self._staged:
            staged.aborted()
        for row in self._rows:
            outbox.aborted(row)
