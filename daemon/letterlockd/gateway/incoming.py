"""One envelope of a user from its arrival to its acknowledgement.

    arrived ──▶ turn: decrypt ──▶ message, read receipt, typing sign ──▶ committed ──▶ safe
                              └── a replay ───────────────────────────────────────────▶ safe
                              └── cannot be opened: told, asked for again ──▶ committed ──▶ safe

Poison ends with the message: the conversation goes on (I9). What comes again comes in an envelope
of another name, so the name that counts is the one inside: it is taken once (I8). The content
stays sealed here; only what the front must act on is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from letterlock.content.v1 import content_pb2
from letterlock.relay.v1 import mailbox_pb2
from letterlock.v1 import messaging_pb2

from letterlockd.errors import LetterlockError
from letterlockd.gateway.contacts import Contact, phone_write
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.decryption_errors import MAX_ATTEMPTS, Report, error_record
from letterlockd.gateway.draft import Draft, Work
from letterlockd.gateway.handover import seal_number
from letterlockd.gateway.news import Advance
from letterlockd.gateway.numbers import Number
from letterlockd.gateway.outbox import Outbox
from letterlockd.gateway.renewals import Renewals
from letterlockd.gateway.tables import (
    ASKED,
    LAST_RESORT_USES,
    PRE_KEYS,
    SEEN,
    asked_key,
    pre_key_key,
    seen_key,
)
from letterlockd.limits import LAST_RESORT_USE_DAYS
from letterlockd.model.ids import AccountId, ConversationId, MessageId, new_message_id
from letterlockd.records.v1 import inbox_pb2
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.records.v1.gateway_pb2 import AskedRecord
from letterlockd.sealing.keyring import DAY_MS, DayKey
from letterlockd.sealing.seal import seal
from letterlockd.store.port import ABSENT, Check, CommitConflict, Delete, Put

__all__ = ["IncomingWork", "Mending"]

_REPLAY = "DuplicatedMessage"

_Reason = messaging_pb2.UndecryptableMessage

_REASONS: dict[str, messaging_pb2.UndecryptableMessage.Reason.ValueType] = {
    "SessionNotFound": _Reason.REASON_NO_SESSION,
    "UnknownPreKey": _Reason.REASON_UNKNOWN_PRE_KEY,
    "InvalidPreKeyId": _Reason.REASON_UNKNOWN_PRE_KEY,
    "InvalidSignedPreKeyId": _Reason.REASON_UNKNOWN_PRE_KEY,
    "InvalidKyberPreKeyId": _Reason.REASON_UNKNOWN_PRE_KEY,
    "UntrustedIdentity": _Reason.REASON_UNTRUSTED_IDENTITY,
    "BadPayload": _Reason.REASON_BAD_CONTENT,
    "CorruptRecord": _Reason.REASON_GATEWAY,
    "InternalError": _Reason.REASON_GATEWAY,
    "WorkerLost": _Reason.REASON_GATEWAY,
}
"""What the business is told for a verdict; every other one is REASON_INVALID."""

_TYPING_LIFE_MS = 60_000
"""A typing sign that nobody took within a minute is of no use."""

_LONGEST_MS = 30 * DAY_MS
_SHORTEST_SEEN_MS = 3_600_000

_PRE_KEY_VERSION = 1
"""Pre-keys are written once: a row that is there has this version."""


@dataclass(frozen=True, slots=True)
class Mending:
    """What it takes to ask a device for a message again."""

    outbox: Outbox
    renewals: Renewals
    random: Callable[[int], bytes]


class IncomingWork(Work):
    """An envelope in a conversation. `safe` is called when the relay may forget it; `undecrypted`
    says then that its sender was told that it could not be opened."""

    __slots__ = (
        "_checks",
        "_contact",
        "_counters",
        "_day_key",
        "_envelope",
        "_expire_ms",
        "_is_known",
        "_is_replay",
        "_mending",
        "_seen",
        "_used",
        "_used_up",
        "safe",
        "undecrypted",
    )

    flow = "inbound"

    def __init__(
        self,
        number: Number,
        conversation: ConversationId,
        envelope: mailbox_pb2.Envelope,
        *,
        seen: bytes,
        day_key: DayKey,
        expire_ms: int,
        contact: Contact | None,
        counters: Counters,
        used: Callable[[AccountId, int, int], None],
        mending: Mending,
    ) -> None:
        user = AccountId(envelope.sender_account_id)
        super().__init__(number, conversation, user, expire_ms // DAY_MS, day_key.key)
        self._envelope = envelope
        self._seen = seen
        self._day_key = day_key
        self._expire_ms = expire_ms
        self._contact = contact
        self._counters = counters
        self._used = used
        self._used_up = [0, 0]
        self._checks: set[bytes] = set()
        self._is_replay = False
        self._is_known = False
        self._mending = mending
        self.undecrypted = False
        self.safe: list[Callable[[], None]] = []

    def plan(self, task: jobs.ConversationTask, known: bool) -> int:
        """Decrypt; a proven replay is only noted, by a step that does nothing."""
        if self._is_replay:
            task.steps.add().drop_devices.SetInParent()
            return 1
        step = task.steps.add().decrypt
        step.device_id = self._envelope.sender_device_id
        step.type = self._envelope.type
        step.body = self._envelope.body
        step.content_context = self._context
        step.may_archive = self._mending.renewals.allowed(self.conversation)
        return 1

    def settle(self, results: Sequence[jobs.StepResult], draft: Draft) -> None:
        """Write what the envelope held."""
        result = results[0]
        self._used_up = [0, 0]
        self._checks.clear()
        if result.HasField("decrypted"):
            self._see(self._seen, draft)
            self._settle_keys(result.decrypted, draft)
            self._settle_once(result.decrypted, draft)
        elif result.HasField("failure") and result.failure.name != _REPLAY:
            self._settle_keys(result.failure.opened, draft)
            self._settle_poison(result.failure, draft)
        else:
            self._counters.duplicates += 1
            if not self.undecrypted:  # what was asked for again must not count as seen
                self._see(self._seen, draft)

    def committed(self) -> None:
        """The relay may forget it."""
        if any(self._used_up):
            self._used(self.number.account, *self._used_up)
        for safe in self.safe:
            safe()

    def failed(self, error: LetterlockError) -> bool:
        """Keep it: the relay gives it again only after the stream was lost."""
        return True

    def owns(self, conflict: CommitConflict) -> bool:
        """Whether a key that this message used was used before."""
        return conflict.key in self._checks

    async def conflicted(self, conflict: CommitConflict) -> None:
        """A replay that outlived its session, or a message that was asked for before; one that
        came in another envelope before; or a pre-key that another conversation took, which the
        next turn will not find."""
        self._is_replay = conflict.table in (LAST_RESORT_USES, ASKED)
        self._is_known = conflict.table == SEEN
        self.undecrypted = conflict.table == ASKED

    @property
    def _context(self) -> bytes:
        return self.conversation + self._envelope.message_id

    def _seen_until(self, now_ms: int) -> int:
        """As long as the relay may give it again."""
        dies_ms = self._envelope.expire_time.ToMilliseconds()
        return min(max(dies_ms, now_ms + _SHORTEST_SEEN_MS), now_ms + _LONGEST_MS)

    def _see(self, key: bytes, draft: Draft) -> None:
        draft.write(Put(SEEN, key, b"\x01", self._seen_until(draft.now_ms)))

    def _settle_keys(self, told: jobs.Decrypted, draft: Draft) -> None:
        if told.identity_changed:
            draft.tell_identity_change(self._expire_ms)
        for used in told.used_pre_keys:
            key = pre_key_key(self.number.key_scope, used.kind, used.key_id)
            draft.write(Check(PRE_KEYS, key, _PRE_KEY_VERSION), Delete(PRE_KEYS, key))
            self._checks.add(key)
            self._used_up[used.kind != jobs.PRE_KEY_KIND_ONE_TIME] += 1
        if told.last_resort_use:
            key = self.number.account + told.last_resort_use
            until_ms = draft.now_ms + LAST_RESORT_USE_DAYS * DAY_MS
            draft.write(Check(LAST_RESORT_USES, key, ABSENT))
            draft.write(Put(LAST_RESORT_USES, key, b"\x01", until_ms))
            self._checks.add(key)

    def _settle_once(self, told: jobs.Decrypted, draft: Draft) -> None:
        """Take the message, unless it was taken in another envelope. The envelope's name is the
        relay's word; the one inside is the sender's."""
        if told.message_id != self._envelope.message_id:
            if self._is_known:
                self._counters.duplicates += 1
                return
            user = AccountId(self._envelope.sender_account_id)
            key = seen_key(self.number.account, user, MessageId(told.message_id))
            draft.write(Check(SEEN, key, ABSENT))
            self._checks.add(key)
            self._see(key, draft)
        if self._envelope.HasField("resend"):
            self._counters.healed += 1
            draft.write(Delete(ASKED, asked_key(self.conversation, MessageId(told.message_id))))
        self._settle_content(told, draft)

    def _settle_content(self, told: jobs.Decrypted, draft: Draft) -> None:
        self._counters.received += 1
        if self._contact is not None:
            draft.write(*phone_write(self.number, self._contact, self._expire_ms, draft.now_ms))
        if told.kind == jobs.PAYLOAD_KIND_READ_RECEIPT and told.identity_unconfirmed:
            self._counters.unconfirmed_receipts += 1  # whose word it is, nobody knows yet
        elif told.kind == jobs.PAYLOAD_KIND_READ_RECEIPT:
            read = messaging_pb2.MESSAGE_STATUS_READ
            draft.advances += [
                Advance(MessageId(message_id), read, self.conversation)
                for message_id in told.read_message_ids
            ]
        elif told.kind == jobs.PAYLOAD_KIND_TYPING:
            payload = content_pb2.Payload(message_id=told.message_id)
            payload.sent_time.FromMilliseconds(told.sent_ms)
            payload.content.typing.started = told.typing_started
            sealed = seal(self._day_key.key, payload.SerializeToString(), self._context)
            until_ms = min(draft.now_ms + _TYPING_LIFE_MS, self._expire_ms)
            draft.tell(self._inbound_event(told, sealed), until_ms)
        else:
            draft.tell(self._inbound_event(told, told.sealed_payload), self._expire_ms)

    def _settle_poison(self, failure: jobs.StepFailure, draft: Draft) -> None:
        """Tell the business and the device. Only a failure that came of the session is the
        device's business; what was sent again three times is given up."""
        self._counters.undecryptable += 1
        envelope = self._envelope
        resend = envelope.resend
        message_id = MessageId(resend.message_id or envelope.message_id)
        self.undecrypted = bool(failure.decryption_error) and resend.attempt <= MAX_ATTEMPTS
        asked = self.undecrypted and resend.attempt < MAX_ATTEMPTS
        if failure.archived:
            self._mending.renewals.spend(self.conversation)
        if self.undecrypted:
            report = Report(message_id, resend.attempt, failure.decryption_error)
            self._report(report, draft)
        self._remember(message_id, asked, draft)
        lost = inbox_pb2.StoredUndecryptable(
            device_id=envelope.sender_device_id,
            message_id=message_id,
            reason=_REASONS.get(failure.name, _Reason.REASON_INVALID),
            resend_requested=asked,
        )
        draft.tell(inbox_pb2.StoredEvent(undecryptable=lost), self._expire_ms)

    def _report(self, report: Report, draft: Draft) -> None:
        record = error_record(
            report,
            name=new_message_id(draft.now_ms, self._mending.random),
            conversation=self.conversation,
            account=self.number.account,
            user=AccountId(self._envelope.sender_account_id),
            device=self._envelope.sender_device_id,
            expire_ms=self._expire_ms,
        )
        draft.send(self._mending.outbox, record)

    def _remember(self, message_id: MessageId, asked: bool, draft: Draft) -> None:
        """What was asked for stands in ASKED until it has come, and is not seen before."""
        key = asked_key(self.conversation, message_id)
        is_first = message_id == self._envelope.message_id
        if asked:
            self._counters.asked_again += 1
            record = AskedRecord(device_id=self._envelope.sender_device_id)
            if is_first:
                draft.write(Check(ASKED, key, ABSENT))
                self._checks.add(key)
            draft.write(Put(ASKED, key, record.SerializeToString(), self._expire_ms))
        else:
            self._counters.not_healed += 1
            draft.write(Delete(ASKED, key))
        if not asked or not is_first:
            self._see(self._seen, draft)

    def _inbound_event(self, told: jobs.Decrypted, sealed_payload: bytes) -> inbox_pb2.StoredEvent:
        envelope = self._envelope
        event = inbox_pb2.StoredEvent()
        inbound = event.inbound
        inbound.device_id = envelope.sender_device_id
        inbound.message_id = envelope.message_id
        inbound.day_key_id = self._day_key.id
        inbound.sealed_payload = sealed_payload
        inbound.identity_unconfirmed = told.identity_unconfirmed
        if envelope.sender_phone_number:
            inbound.sealed_number = seal_number(
                self._day_key, self._context, envelope.sender_phone_number
            )
        return event
