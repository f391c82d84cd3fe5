"""Takes messages from streams: bounds, idempotency, recipients; then they wait for their turn.

    submit ──gate (I6)──▶ drawn ──▶ key in flight? ──▶ key in the store? ──▶ recipient ──▶ lane
                                        │ follow            │ first outcome      └▶ first contact
                                        ▼                   ▼
                                     answered             answered

A key means one message (I8): repeats are found in flight and in the store, and the commit itself
checks that the key is absent. Answers are gathered and given once a loop turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from letterlock.v1 import errors_pb2, messaging_pb2

from letterlockd.clock import Clock
from letterlockd.errors import Forbidden, NotFound
from letterlockd.gateway.contacts import Contact, Contacts
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.first_contacts import FirstContacts
from letterlockd.gateway.gate import Gate
from letterlockd.gateway.news import MIN_EVENT_LIFE_MS
from letterlockd.gateway.numbers import Number, NumberBook
from letterlockd.gateway.outbox import Outbox
from letterlockd.gateway.outgoing import Letter, OutgoingWork, Owner
from letterlockd.gateway.payload import padded_payload
from letterlockd.gateway.references import ReferenceKey, open_reference
from letterlockd.gateway.refusals import of_error, refuse
from letterlockd.gateway.tables import IDEMPOTENCY, MESSAGES, pseudonym_part
from letterlockd.model.ids import (
    AccountId,
    ConversationId,
    MessageId,
    Pseudonym,
    new_message_id,
)
from letterlockd.model.sender import Sender
from letterlockd.records.v1 import gateway_pb2 as records
from letterlockd.sealing.keyring import DAY_MS, Keyring
from letterlockd.sealing.seal import Cipher
from letterlockd.store.port import ABSENT, Record, Store, StoreFull

__all__ = ["Answer", "Outbound"]

Answer = Callable[[list[messaging_pb2.SendResult]], None]
"""Given results of one `submit`, on the loop, as they come."""

_MAX_STEP = 256
"""Messages admitted at a time; a larger frame is let in by steps."""

_RETRY_MS = 5_000
"""When to come again to a full outbox or a draining process."""


class _Answers:
    """Results of one submit that wait for the end of the loop turn."""

    __slots__ = ("_answer", "results")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.results: list[messaging_pb2.SendResult] = []

    def give(self) -> None:
        results, self.results = self.results, []
        self._answer(results)


class Outbound(Owner):
    """Outgoing messages of all business numbers."""

    def __init__(
        self,
        *,
        store: Store,
        keyring: Keyring,
        numbers: NumberBook,
        contacts: Contacts,
        outbox: Outbox,
        clock: Clock,
        random: Callable[[int], bytes],
        counters: Counters,
        max_in_hand: int,
        max_outbox: int,
    ) -> None:
        self.outbox = outbox
        self._store = store
        self._keyring = keyring
        self._numbers = numbers
        self._contacts = contacts
        self._clock = clock
        self._random = random
        self._counters = counters
        self._gate = Gate(max_in_hand)
        self._max_outbox = max_outbox
        self._by_key: dict[bytes, OutgoingWork] = {}
        self._told: dict[_Answers, None] = {}
        self._draining = False
        self._first_contacts: FirstContacts
        self._put: Callable[[OutgoingWork], None]
        self._idle = asyncio.Event()
        self._idle.set()

    def connect(self, put: Callable[[OutgoingWork], None], first_contacts: FirstContacts) -> None:
        """Name what comes after: the lanes, and where first contacts wait."""
        self._put = put
        self._first_contacts = first_contacts

    @property
    def in_hand(self) -> int:
        """Messages that are admitted and not answered."""
        return self._gate.taken

    def holds(self, account: AccountId) -> bool:
        """Whether messages of a number are admitted and not answered."""
        return any(key.startswith(account) for key in self._by_key)

    def drain(self) -> None:
        """Refuse what comes from now on."""
        self._draining = True

    async def idle(self) -> None:
        """Wait until every admitted message is answered."""
        await self._idle.wait()

    async def submit(
        self, sender: Sender, messages: Sequence[messaging_pb2.OutgoingMessage], answer: Answer
    ) -> None:
        """Admit messages that are valid each by itself. Returns when all are in hand; waits
        while too many are. Each is answered exactly once, with the acceptance after its commit."""
        number = await self._numbers.get(sender.account_id)
        if number is None:
            raise Forbidden("the business number was removed")
        answers = _Answers(answer)
        for start in range(0, len(messages), _MAX_STEP):
            step = messages[start : start + _MAX_STEP]
            await self._gate.take(len(step))
            self._idle.clear()
            await self._admit(sender, number, step, answers)

    async def message(
        self, sender: Sender, *, message_id: MessageId | None, idempotency_key: str | None
    ) -> messaging_pb2.Message:
        """How far a message has come. Raises `NotFound`, also for another number's message."""
        if message_id is None:
            message_id = await self._id_of_key(sender, idempotency_key or "")
        row = await self._store.get(MESSAGES, message_id)
        if row is None or row.expires_at_ms <= self._clock.now_ms():
            raise NotFound("no such message")
        record = records.MessageRecord.FromString(row.value)
        if not record.conversation.startswith(sender.account_id):
            raise NotFound("no such message")
        day_key = await self._keyring.day_key_by_id(sender.account_id, record.reference_key_id)
        reference = open_reference(Cipher(day_key.key), message_id, record.sealed_reference)
        return _public(message_id, record, *reference)

    def finished(self, work: OutgoingWork) -> None:
        """Forget a work that was answered."""
        self._by_key.pop(work.letter.key, None)
        if work.outcome is not None and work.outcome.HasField("accepted"):
            self._counters.accepted += not work.outcome.accepted.repeated
            self._counters.repeated += work.outcome.accepted.repeated
        else:
            self._counters.refused += 1
        self._leave(work.in_hand)

    def without_session(self, work: OutgoingWork) -> None:
        """Open sessions anew, with the bundles that came or with fresh ones."""
        if work.introduction is not None:
            work.introduction.anew = True
            self._put(work)
        elif work.user is not None:
            self._first_contacts.add_known(work, work.user)
        else:
            self._first_contacts.add(work)

    async def seen_before(self, work: OutgoingWork) -> None:
        """Answer from the store, unless what is there is expired, or swept by now."""
        row = await self._store.get(IDEMPOTENCY, work.letter.key)
        self._compare(work, row)

    async def _admit(
        self,
        sender: Sender,
        number: Number,
        messages: Sequence[messaging_pb2.OutgoingMessage],
        answers: _Answers,
    ) -> None:
        works = []
        day_keys: dict[int, bytes] = {}
        now_ms = self._clock.now_ms()
        keep_until_ms = now_ms + sender.retention_ms
        reference_key: ReferenceKey | None = None
        for message in messages:
            if (refusal := self._full()) is not None:
                self._turn_away(message, refusal, answers)
                continue
            life_ms = sender.retention_ms
            if message.HasField("time_to_live"):
                life_ms = min(life_ms, message.time_to_live.ToMilliseconds())
            expire_ms = now_ms + life_ms
            day = expire_ms // DAY_MS
            try:
                if reference_key is None:
                    reference_key = await self._reference_key(number, keep_until_ms)
                if day not in day_keys:
                    day_keys[day] = (await self._keyring.day_key(number.account, expire_ms)).key
            except StoreFull as full:
                self._turn_away(message, of_error(full), answers)
                continue
            letter = self._draw(
                number, message, now_ms, expire_ms, keep_until_ms, day_keys[day], reference_key
            )
            work = self._claim(number, message, letter, answers)
            if work is not None:
                works.append(work)
        await self._dispatch(number, await self._unseen(works))

    async def _reference_key(self, number: Number, keep_until_ms: int) -> ReferenceKey:
        """What seals the references of messages that are kept until then, and their events."""
        last_ms = keep_until_ms + MIN_EVENT_LIFE_MS
        return ReferenceKey.of(await self._keyring.day_key(number.account, last_ms))

    def _turn_away(
        self,
        message: messaging_pb2.OutgoingMessage,
        refusal: errors_pb2.Refusal,
        answers: _Answers,
    ) -> None:
        key = message.idempotency_key
        self._tell(answers, messaging_pb2.SendResult(idempotency_key=key, refused=refusal))
        self._counters.refused += 1
        self._leave(1)

    def _full(self) -> errors_pb2.Refusal | None:
        if self._draining:
            reason, why = errors_pb2.ERROR_REASON_DRAINING, "the gateway is about to stop"
        elif self.outbox.count + len(self._by_key) >= self._max_outbox:
            reason, why = errors_pb2.ERROR_REASON_QUEUE_FULL, "too many messages wait for the relay"
        else:
            return None
        return refuse(reason, why, retry_after_ms=_RETRY_MS)

    def _draw(
        self,
        number: Number,
        message: messaging_pb2.OutgoingMessage,
        now_ms: int,
        expire_ms: int,
        keep_until_ms: int,
        day_key: bytes,
        reference_key: ReferenceKey,
    ) -> Letter:
        message_id = new_message_id(now_ms, self._random)
        content = message.content.SerializeToString(deterministic=True)
        return Letter(
            message_id=message_id,
            idempotency_key=message.idempotency_key,
            caller_tag=message.caller_tag,
            key=number.account + number.key_tag(message.idempotency_key),
            digest=number.digest(message.phone_number or message.user_id, content),
            payload=padded_payload(message_id, now_ms, content),
            phone_number=message.phone_number,
            accept_ms=now_ms,
            expire_ms=expire_ms,
            keep_until_ms=keep_until_ms,
            day=expire_ms // DAY_MS,
            day_key=day_key,
            reference_key=reference_key,
        )

    def _claim(
        self,
        number: Number,
        message: messaging_pb2.OutgoingMessage,
        letter: Letter,
        answers: _Answers,
    ) -> OutgoingWork | None:
        """The work of a key that is not in flight; otherwise the repeat is dealt with."""

        def answer(result: messaging_pb2.SendResult) -> None:
            self._tell(answers, result)

        work = OutgoingWork(number, letter, answer, self)
        if message.user_id:
            work.address(Pseudonym(bytes.fromhex(message.user_id)))
        first = self._by_key.get(letter.key)
        if first is None:
            self._by_key[letter.key] = work
            return work
        if first.letter.digest == letter.digest:
            first.follow(answer)
        else:
            self._turn_away(message, _reused(), answers)
        return None

    async def _unseen(self, works: list[OutgoingWork]) -> list[OutgoingWork]:
        """Those whose key is not in the store; the others are answered from it."""
        keys = [work.letter.key for work in works]
        rows = await self._store.get_many(IDEMPOTENCY, keys) if keys else []
        unseen = []
        for work, row in zip(works, rows, strict=True):
            self._compare(work, row)
            if work.outcome is None:
                unseen.append(work)
        return unseen

    def _compare(self, work: OutgoingWork, row: Record | None) -> None:
        if row is None or row.expires_at_ms <= work.letter.accept_ms:
            work.letter.key_version = ABSENT if row is None else row.version
        else:
            self._answer_again(work, row)

    def _answer_again(self, work: OutgoingWork, row: Record) -> None:
        record = records.IdempotencyRecord.FromString(row.value)
        if record.digest == work.letter.digest:
            work.address(Pseudonym(record.pseudonym))
            work.accept(MessageId(record.message_id), record.accept_ms, repeated=True)
        else:
            work.refuse(_reused())

    async def _dispatch(self, number: Number, works: list[OutgoingWork]) -> None:
        numbers = {work.letter.phone_number: None for work in works if work.letter.phone_number}
        contacts = await self._contacts.find(number, numbers)
        for work in works:
            phone_number = work.letter.phone_number
            contact = contacts.get(phone_number)
            if not phone_number:
                self._put(work)
            elif contact is None or self._first_contacts.pending(number.account, phone_number):
                self._add_first_contact(number, work)
            else:
                self._address(work, contact)

    def _add_first_contact(self, number: Number, work: OutgoingWork) -> None:
        # Another stream's first contact may have been made while the table was read.
        phone_number = work.letter.phone_number
        contact = self._contacts.known(number, phone_number)
        if contact is None or self._first_contacts.pending(number.account, phone_number):
            self._first_contacts.add(work)
        else:
            self._address(work, contact)

    def _address(self, work: OutgoingWork, contact: Contact) -> None:
        work.contact = contact
        work.address(contact.pseudonym)
        self._put(work)

    def _tell(self, answers: _Answers, result: messaging_pb2.SendResult) -> None:
        answers.results.append(result)
        if not self._told:
            asyncio.get_running_loop().call_soon(self._give_answers)
        self._told[answers] = None

    def _give_answers(self) -> None:
        told, self._told = self._told, {}
        for answers in told:
            answers.give()

    def _leave(self, count: int) -> None:
        self._gate.give_back(count)
        if self._gate.taken == 0:
            self._idle.set()

    async def _id_of_key(self, sender: Sender, idempotency_key: str) -> MessageId:
        number = await self._numbers.get(sender.account_id)
        if number is None:
            raise Forbidden("the business number was removed")
        key = number.account + number.key_tag(idempotency_key)
        row = await self._store.get(IDEMPOTENCY, key)
        if row is None:
            raise NotFound("no such message")
        return MessageId(records.IdempotencyRecord.FromString(row.value).message_id)


def _reused() -> errors_pb2.Refusal:
    reason = errors_pb2.ERROR_REASON_IDEMPOTENCY_KEY_REUSED
    return refuse(reason, "the idempotency key stands for another message")


def _public(
    message_id: MessageId, record: records.MessageRecord, idempotency_key: str, caller_tag: bytes
) -> messaging_pb2.Message:
    message = messaging_pb2.Message(
        message_id=message_id.hex(),
        idempotency_key=idempotency_key,
        user_id=pseudonym_part(ConversationId(record.conversation)).hex(),
        caller_tag=caller_tag,
        status=record.status,
    )
    if record.HasField("failure"):
        message.failure.CopyFrom(record.failure)
    message.accept_time.FromMilliseconds(record.accept_ms)
    message.update_time.FromMilliseconds(record.update_ms)
    message.expire_time.FromMilliseconds(record.expire_ms)
    return message
