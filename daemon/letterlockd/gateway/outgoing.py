"""One outgoing message from admission to its answer.

    drawn ──▶ (first contact) ──▶ turn: establish?, encrypt ──▶ committed ──▶ answered
                    └── refused ───────────┴── refused

The payload is in clear here and in the worker, and nowhere on disk: the outbox row keeps it under
the day key until the relay has taken the message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from letterlock.relay.v1 import keys_pb2, mailbox_pb2
from letterlock.v1 import errors_pb2, messaging_pb2

from letterlockd.errors import LetterlockError
from letterlockd.gateway.contacts import Contact, phone_write
from letterlockd.gateway.draft import Draft, Work
from letterlockd.gateway.numbers import Number
from letterlockd.gateway.outbox import Outbox
from letterlockd.gateway.references import ReferenceKey
from letterlockd.gateway.refusals import of_error, refuse
from letterlockd.gateway.tables import IDEMPOTENCY, pseudonym_part
from letterlockd.model.ids import (
    AccountId,
    ConversationId,
    MessageId,
    Pseudonym,
    conversation_id,
)
from letterlockd.model.varint import varint
from letterlockd.records.v1 import gateway_pb2 as records
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.store.port import ABSENT, Check, CommitConflict, Put

__all__ = ["Answered", "Introduction", "Letter", "OutgoingWork", "Owner", "establish", "submission"]

_BAD_PRE_KEYS = frozenset(
    {
        "BadBundle",
        "SignatureValidationFailed",
        "InvalidKeyAgreement",
        "BadKeyType",
        "BadKeyLength",
        "NoKeyTypeIdentifier",
        "BadKEMKeyType",
        "BadKEMKeyLength",
        "InvalidMessage",
    }
)
_NO_SESSION = "SessionNotFound"
_UNCONFIRMED = "IdentityUnconfirmed"

_MESSAGE_ID_TAG = b"\x0a\x10"  # Submission.message_id: field 1, 16 bytes
_SENDER_TAG = b"\x12\x10"  # Submission.sender_account_id: field 2, 16 bytes
_RECIPIENT_TAG = b"\x1a\x10"  # Submission.recipient_account_id: field 3, 16 bytes
_ENVELOPE_TAG = b"\x22"  # Submission.envelopes: field 4, length-delimited

Answered = Callable[[messaging_pb2.SendResult], None]


@dataclass(slots=True)
class Letter:
    """What the business said, and what was decided about it when it was drawn. Times in
    milliseconds since 1970; `keep_until_ms` is when the last trace goes. `key_version`: of the row
    that the key has already, which is expired and not yet swept."""

    message_id: MessageId
    idempotency_key: str = field(repr=False)
    caller_tag: bytes = field(repr=False)
    key: bytes
    digest: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    phone_number: str = field(repr=False)
    accept_ms: int
    expire_ms: int
    keep_until_ms: int
    day: int
    day_key: bytes = field(repr=False)
    reference_key: ReferenceKey
    key_version: int = ABSENT


@dataclass(slots=True)
class Introduction:
    """A recipient's bundles, shared by the messages that waited for them. Used once: each holds
    one-time keys, with which a second session cannot be opened. `anew`: also where the
    conversation is known, because none of its sessions can send."""

    bundles: keys_pb2.AccountBundles
    anew: bool = False
    used: bool = False

    def is_due(self, known: bool) -> bool:
        """Whether the next turn has to open sessions."""
        return not self.used and (self.anew or not known)


class Owner:
    """Who admitted the message: told once when it is answered, and asked when a turn shows that it
    cannot go on as it is."""

    outbox: Outbox

    def finished(self, work: OutgoingWork) -> None:
        """The work was answered."""
        raise NotImplementedError

    def without_session(self, work: OutgoingWork) -> None:
        """No device of the conversation has a session that can send."""
        raise NotImplementedError

    async def seen_before(self, work: OutgoingWork) -> None:
        """The idempotency key's row is not as it was when the message was drawn."""
        raise NotImplementedError


class OutgoingWork(Work):
    """An outgoing message in a conversation."""

    flow = "outbound"

    __slots__ = (
        "_answer",
        "_followers",
        "_opens",
        "_owner",
        "_parted",
        "contact",
        "introduction",
        "letter",
        "outcome",
    )

    def __init__(self, number: Number, letter: Letter, answer: Answered, owner: Owner) -> None:
        # The conversation is known once the recipient is: see `address`.
        super().__init__(number, ConversationId(b""), None, letter.day, letter.day_key)
        self.letter = letter
        self.contact: Contact | None = None
        self.introduction: Introduction | None = None
        self.outcome: messaging_pb2.SendResult | None = None
        self._answer = answer
        self._owner = owner
        self._followers: list[Answered] = []
        self._opens = False
        self._parted = False

    def address(self, pseudonym: Pseudonym) -> None:
        """Settle whom the message is for."""
        self.conversation = conversation_id(self.number.account, pseudonym)

    def follow(self, answer: Answered) -> None:
        """Give a repeat of this message the same outcome."""
        self._followers.append(answer)

    @property
    def in_hand(self) -> int:
        """How many admissions end with this work."""
        return 1 + len(self._followers)

    def plan(self, task: jobs.ConversationTask, known: bool) -> int:
        """Encrypt; on first contact open sessions before."""
        introduction = self.introduction
        self._opens = introduction is not None and introduction.is_due(known)
        if not known and not self._opens:
            if introduction is None and self.letter.phone_number:
                # The first contact that found this conversation was never committed.
                self._parted = True
                self._owner.without_session(self)
                return 0
            self.refuse(_unknown() if introduction is None else _bad_pre_keys())
        if self.outcome is not None:
            return 0
        if self._opens and introduction is not None:
            introduction.used = True
            establish(task.steps.add().establish, introduction.bundles, complete=True)
        step = task.steps.add().encrypt
        step.payload = self.letter.payload
        step.content_context = self.conversation + self.letter.message_id
        return 2 if self._opens else 1

    def settle(self, results: Sequence[jobs.StepResult], draft: Draft) -> None:
        """Write what makes the message accepted."""
        self._parted = False
        if results[0].established.identity_changed:
            draft.tell_identity_change(self.letter.keep_until_ms)
        if results[-1].HasField("failure"):
            self._settle_failure(results, draft)
            return
        letter = self.letter
        draft.write(
            Check(IDEMPOTENCY, letter.key, letter.key_version),
            Put(IDEMPOTENCY, letter.key, self._idempotency(), letter.keep_until_ms),
        )
        draft.accept(letter.message_id, self._message(), letter.keep_until_ms)
        if self.contact is not None:
            draft.write(*phone_write(self.number, self.contact, letter.expire_ms, draft.now_ms))
        draft.send(self._owner.outbox, self._outbox_record(draft.user, results[-1].encrypted))

    def committed(self) -> None:
        """Accepted."""
        if self.outcome is None and not self._parted:
            self.accept(self.letter.message_id, self.letter.accept_ms, repeated=False)

    def failed(self, error: LetterlockError) -> bool:
        """Refused: the caller may repeat it under the same key."""
        self.taken_back()
        if not self._parted:
            self.refuse(of_error(error))
        return False

    def taken_back(self) -> None:
        """Sessions that this turn opened are still to be opened."""
        if self._opens and self.introduction is not None:
            self.introduction.used = False

    def owns(self, conflict: CommitConflict) -> bool:
        """Whether the idempotency key was there already."""
        return conflict.table == IDEMPOTENCY and conflict.key == self.letter.key

    async def conflicted(self, conflict: CommitConflict) -> None:
        """Give the first outcome."""
        await self._owner.seen_before(self)

    def accept(self, message_id: MessageId, accept_ms: int, *, repeated: bool) -> None:
        """Answer that the message is the gateway's duty, under this id."""
        result = messaging_pb2.SendResult(idempotency_key=self.letter.idempotency_key)
        accepted = result.accepted
        accepted.message_id = message_id.hex()
        accepted.user_id = pseudonym_part(self.conversation).hex()
        seconds, rest = divmod(accept_ms, 1_000)
        accepted.accept_time.seconds = seconds
        accepted.accept_time.nanos = rest * 1_000_000
        accepted.repeated = repeated
        self._finish(result)

    def refuse(self, refusal: errors_pb2.Refusal) -> None:
        """Answer that nothing was done."""
        key = self.letter.idempotency_key
        self._finish(messaging_pb2.SendResult(idempotency_key=key, refused=refusal))

    def _finish(self, result: messaging_pb2.SendResult) -> None:
        if self.outcome is not None:
            return
        self.outcome = result
        self._answer(result)
        for follower in self._followers:
            again = messaging_pb2.SendResult()
            again.CopyFrom(result)
            if again.HasField("accepted"):
                again.accepted.repeated = True
            follower(again)
        self._owner.finished(self)

    def _settle_failure(self, results: Sequence[jobs.StepResult], draft: Draft) -> None:
        name = next(result.failure.name for result in results if result.HasField("failure"))
        introduction = self.introduction
        if name == _NO_SESSION and (introduction is None or not introduction.used):
            self.user = draft.user
            self._parted = True
            self._owner.without_session(self)
        elif name == _UNCONFIRMED:
            self.refuse(_unconfirmed())
        elif name in _BAD_PRE_KEYS or name == _NO_SESSION:
            self.refuse(_bad_pre_keys())
        else:
            internal = errors_pb2.ERROR_REASON_INTERNAL
            self.refuse(refuse(internal, "internal error", retry_after_ms=1_000))

    def _idempotency(self) -> bytes:
        letter = self.letter
        return records.IdempotencyRecord(
            message_id=letter.message_id,
            digest=letter.digest,
            pseudonym=pseudonym_part(self.conversation),
            accept_ms=letter.accept_ms,
        ).SerializeToString()

    def _message(self) -> records.MessageRecord:
        letter = self.letter
        return records.MessageRecord(
            conversation=self.conversation,
            reference_key_id=letter.reference_key.id,
            sealed_reference=letter.reference_key.seal(
                letter.message_id, letter.idempotency_key, letter.caller_tag
            ),
            status=messaging_pb2.MESSAGE_STATUS_ACCEPTED,
            accept_ms=letter.accept_ms,
            update_ms=letter.accept_ms,
            expire_ms=letter.expire_ms,
        )

    def _outbox_record(self, user: AccountId, encrypted: jobs.Encrypted) -> records.OutboxRecord:
        letter = self.letter
        envelopes = encrypted.envelopes
        return records.OutboxRecord(
            submission=submission(
                letter.message_id, self.number.account, user, letter.expire_ms, envelopes
            ),
            conversation=self.conversation,
            message_id=letter.message_id,
            sealed_payload=encrypted.sealed_payload,
            expire_ms=letter.expire_ms,
        )


def _unknown() -> errors_pb2.Refusal:
    return refuse(errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT, "no such user")


def _unconfirmed() -> errors_pb2.Refusal:
    reason = errors_pb2.ERROR_REASON_IDENTITY_UNCONFIRMED
    return refuse(reason, "the user's identity key changed and is not confirmed")


def _bad_pre_keys() -> errors_pb2.Refusal:
    bad = errors_pb2.ERROR_REASON_BAD_PRE_KEYS
    return refuse(bad, "the recipient's pre-keys do not verify")


def establish(step: jobs.Establish, bundles: keys_pb2.AccountBundles, *, complete: bool) -> None:
    """Fill a step that opens sessions with the devices of `bundles`; with `complete` these are all
    that the account has."""
    step.complete = complete
    step.identity_key = bundles.identity_key
    step.bundles.extend(device.SerializeToString() for device in bundles.devices)


def submission(
    message_id: MessageId,
    sender: AccountId,
    recipient: AccountId,
    expire_ms: int,
    envelopes: Sequence[bytes],
    resend: mailbox_pb2.Resend | None = None,
) -> bytes:
    """A serialised Submission around serialised DeviceEnvelopes. With `resend`, `message_id` names
    the submission alone."""
    parts = [_MESSAGE_ID_TAG, message_id, _SENDER_TAG, sender, _RECIPIENT_TAG, recipient]
    parts.append(_terms(expire_ms))
    if resend is not None:
        parts.append(mailbox_pb2.Submission(resend=resend).SerializeToString())
    for envelope in envelopes:  # appended as they are: the fields of a message may be concatenated
        parts += (_ENVELOPE_TAG, varint(len(envelope)), envelope)
    return b"".join(parts)


@lru_cache(maxsize=64)
def _terms(expire_ms: int) -> bytes:
    """The fields of a Submission that all messages of one moment share."""
    shared = mailbox_pb2.Submission(receipt_wanted=True)
    shared.expire_time.FromMilliseconds(expire_ms)
    return shared.SerializeToString()
