"""A device could not decrypt what we sent: its session is renewed, and the message sent again.

    report ──▶ is it this user's, SENT, and not sent again since?
                  │ yes                                     │ no: renew the session alone
                  ▼                                         ▼
               turn: archive?, encrypt for this device ──▶ outbox, `resent` ──▶ safe
                  └ no session ──▶ bundles ──▶ turn: establish, encrypt ──▶ outbox, `resent`

Until the last commit the relay keeps the report, and gives it again after a crash: archiving what
is archived already changes nothing, so any point is good to begin at.

A report is a claim that nobody signed. It can cause, at most, three ciphertexts of a message that
is under way already, for the identity key that it was encrypted for before (`same_identity`), and
six new sessions at a time (`renewals`). It is never answered by a report, so two broken ends fall
silent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from letterlock.relay.v1 import keys_pb2, mailbox_pb2
from letterlock.v1 import errors_pb2, messaging_pb2

from letterlockd.clock import Clock
from letterlockd.errors import LetterlockError
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.decryption_errors import MAX_ATTEMPTS, Report, read_report
from letterlockd.gateway.draft import Draft, Work
from letterlockd.gateway.news import Advance
from letterlockd.gateway.numbers import Number
from letterlockd.gateway.outbox import Outbox
from letterlockd.gateway.outgoing import establish, submission
from letterlockd.gateway.renewals import Renewals
from letterlockd.gateway.sending import failure
from letterlockd.gateway.tables import MESSAGES, SEEN
from letterlockd.model.ids import AccountId, MessageId, conversation_id, new_message_id
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.records.v1.gateway_pb2 import MessageRecord, OutboxRecord, Resent
from letterlockd.sealing.errors import KeyDestroyed
from letterlockd.sealing.keyring import DAY_MS, DayKey, Keyring
from letterlockd.store.port import Put, Store

__all__ = ["Healing", "ReportedWork"]

_LOOK_AGAIN_SECONDS = 1.0
_MOST_LOOKS = 30
"""The relay has the message if a device complains of it, and says so within moments."""


@dataclass(slots=True)
class _Case:
    """What a report asks for, as far as it is due."""

    record: MessageRecord | None = field(default=None, repr=False)
    is_early: bool = False
    is_exhausted: bool = False

    @property
    def may_resend(self) -> bool:
        return self.record is not None and not self.is_early and not self.is_exhausted


class ReportedWork(Work):
    """One report in its conversation. `safe` is called when the relay may forget it."""

    __slots__ = (
        "_bundles",
        "_encrypts",
        "_is_over",
        "_lacks_session",
        "_owner",
        "_renews",
        "_seen_until_ms",
        "case",
        "device",
        "looks",
        "report",
        "safe",
        "seen",
        "undecrypted",
    )

    flow = "healing"

    def __init__(
        self,
        number: Number,
        user: AccountId,
        device: int,
        report: Report,
        case: _Case,
        day_key: DayKey,
        day: int,
        *,
        seen: bytes,
        seen_until_ms: int,
        owner: Healing,
    ) -> None:
        conversation = conversation_id(number.account, number.pseudonym(user))
        super().__init__(number, conversation, user, day, day_key.key)
        self.device = device
        self.report = report
        self.case = case
        self.looks = 0
        self.undecrypted = False
        self.safe: list[Callable[[], None]] = []
        self.seen = seen
        self._seen_until_ms = seen_until_ms
        self._owner = owner
        self._bundles: keys_pb2.AccountBundles | None = None
        self._is_over = False
        self._renews = self._encrypts = self._lacks_session = False

    def introduce(self, bundles: keys_pb2.AccountBundles | None) -> None:
        """Go on with new bundles; None: another work of the same turn brings them."""
        self._bundles = bundles
        self._is_over = True

    def give_up(self) -> None:
        """The device, or the account, is gone: there is nobody to send to."""
        self._is_over = True
        self.case = _Case()

    def plan(self, task: jobs.ConversationTask, known: bool) -> int:
        """Archive what the device cannot decrypt; encrypt for it again."""
        before = len(task.steps)
        self._renews = known and self._owner.renewals.allowed(self.conversation)
        if self._renews:
            renew = task.steps.add().renew
            renew.device_id = self.device
            renew.decryption_error = self.report.error
        self._encrypts = known and self.case.may_resend
        if self._encrypts and self.case.record is not None:
            self._plan_resend(task, self.case.record)
        if len(task.steps) == before:
            task.steps.add().drop_devices.SetInParent()
        return len(task.steps) - before

    def settle(self, results: Sequence[jobs.StepResult], draft: Draft) -> None:
        """Write the message as it goes out again, or that it does not."""
        if self._renews and results[0].renewed.archived:
            self._owner.renewals.spend(self.conversation)
        encrypted = results[-1] if self._encrypts else None
        self._lacks_session = (
            encrypted is not None
            and not self._is_over
            and encrypted.failure.name == "SessionNotFound"
        )
        if self._lacks_session or self.case.is_early:
            return
        draft.write(Put(SEEN, self.seen, b"\x01", self._seen_until_ms))
        if encrypted is not None and encrypted.HasField("encrypted"):
            self._resend(encrypted.encrypted, draft)
        elif self.case.is_exhausted or encrypted is not None:
            self._fail(draft)

    def committed(self) -> None:
        """The relay may forget the report, or more is to be done about it."""
        if self._lacks_session:
            self._owner.fetch(self)
        elif self.case.is_early:
            self._owner.look_again(self)
        else:
            self.end()

    def end(self) -> None:
        """Nothing more is done about it: the relay may forget the report."""
        self._owner.finished(self)
        for safe in self.safe:
            safe()

    def failed(self, error: LetterlockError) -> bool:
        """Keep it: the relay gives it again only after the stream was lost."""
        return True

    def _plan_resend(self, task: jobs.ConversationTask, record: MessageRecord) -> None:
        if self._bundles is not None:
            step = task.steps.add().establish
            establish(step, self._bundles, complete=False)
            # A relay that forges a report must not get the message for a key of its own.
            step.same_identity = True
        encrypt = task.steps.add().encrypt
        encrypt.sealed_payload = record.sealed_payload
        encrypt.content_context = self.conversation + self.report.message_id
        encrypt.only_device = self.device

    def _resend(self, encrypted: jobs.Encrypted, draft: Draft) -> None:
        record = self.case.record
        if record is None:
            return
        attempt = self.report.attempt + 1
        name = new_message_id(draft.now_ms, self._owner.random)
        resend = mailbox_pb2.Resend(message_id=self.report.message_id, attempt=attempt)
        sent = submission(
            name,
            self.number.account,
            draft.user,
            record.expire_ms,
            encrypted.envelopes,
            resend,
        )
        row = OutboxRecord(
            submission=sent,
            conversation=self.conversation,
            message_id=self.report.message_id,
            sealed_payload=record.sealed_payload,
            expire_ms=record.expire_ms,
            only_device=self.device,
            submission_id=name,
            attempt=attempt,
        )
        draft.send(self._owner.outbox, row)
        resent = Resent(device_id=self.device, attempts=attempt)
        news = Advance(
            self.report.message_id,
            messaging_pb2.MESSAGE_STATUS_SENT,
            self.conversation,
            resent=resent,
        )
        draft.advances.append(news)
        self._owner.counters.resent += 1

    def _fail(self, draft: Draft) -> None:
        self._owner.counters.not_healed += 1
        why = failure(messaging_pb2.HOP_DEVICE, errors_pb2.ERROR_REASON_UNDECRYPTABLE)
        failed = messaging_pb2.MESSAGE_STATUS_FAILED
        draft.advances.append(Advance(self.report.message_id, failed, self.conversation, why))


class Healing:
    """Reports of all users' devices; bounded by the window that the relay was given. `fetch`: gets
    a work whose device has no session, to be given back with `ReportedWork.introduce`."""

    def __init__(
        self,
        *,
        store: Store,
        keyring: Keyring,
        outbox: Outbox,
        renewals: Renewals,
        clock: Clock,
        random: Callable[[int], bytes],
        counters: Counters,
        put: Callable[[ReportedWork], None],
        fetch: Callable[[ReportedWork], None],
    ) -> None:
        self.outbox = outbox
        self.renewals = renewals
        self.random = random
        self.counters = counters
        self.fetch = fetch
        self._store = store
        self._keyring = keyring
        self._clock = clock
        self._put = put
        self._in_hand: dict[tuple[MessageId, int], ReportedWork] = {}
        self._early: deque[ReportedWork] = deque()
        self._news = asyncio.Event()

    async def work_of(
        self, number: Number, envelope: mailbox_pb2.Envelope, seen: bytes, seen_until_ms: int
    ) -> ReportedWork | None:
        """The work of an envelope of type 8, the same one while it is in hand; None when it says
        nothing, or nothing new."""
        report = read_report(envelope.body)
        if report is None:
            self.counters.malformed_items += 1
            return None
        user, device = AccountId(envelope.sender_account_id), envelope.sender_device_id
        place = (report.message_id, device)
        earlier = self._in_hand.get(place)
        if earlier is not None and earlier.seen == seen:
            return earlier
        is_done = earlier is not None or await self._store.get(SEEN, seen) is not None
        case = None if is_done else await self._case(number, user, device, report)
        if case is None:
            self.counters.duplicates += 1
            return None
        expire_ms = self._clock.now_ms() + DAY_MS
        if case.record is not None:
            expire_ms = case.record.expire_ms
        try:
            day_key = await self._keyring.day_key(number.account, expire_ms)
        except KeyDestroyed:
            return None
        self._in_hand[place] = work = ReportedWork(
            number,
            user,
            device,
            report,
            case,
            day_key,
            expire_ms // DAY_MS,
            seen=seen,
            seen_until_ms=seen_until_ms,
            owner=self,
        )
        return work

    def look_again(self, work: ReportedWork) -> None:
        """The relay has not said yet that it has the message: come back to it soon."""

        def again() -> None:
            self._early.append(work)
            self._news.set()

        asyncio.get_running_loop().call_later(_LOOK_AGAIN_SECONDS, again)

    def finished(self, work: ReportedWork) -> None:
        """The work is committed."""
        del self._in_hand[work.report.message_id, work.device]

    async def run(self) -> None:
        """Look again at what came too early, until cancelled."""
        while True:
            while not self._early:
                self._news.clear()
                await self._news.wait()
            work = self._early.popleft()
            work.looks += 1
            user = work.user
            case = None
            if user is not None and work.looks < _MOST_LOOKS:
                case = await self._case(work.number, user, work.device, work.report)
            work.case = case or _Case()
            self._put(work)

    async def _case(
        self, number: Number, user: AccountId, device: int, report: Report
    ) -> _Case | None:
        """None: it was sent again since."""
        row = await self._store.get(MESSAGES, report.message_id)
        if row is None or row.expires_at_ms <= self._clock.now_ms():
            return _Case()
        record = MessageRecord.FromString(row.value)
        # A user may name any message: only one of this conversation is theirs to ask for.
        if record.conversation != conversation_id(number.account, number.pseudonym(user)):
            return _Case()
        attempts = next((to.attempts for to in record.resent if to.device_id == device), 0)
        if report.attempt < attempts:
            return None
        if report.attempt > attempts:
            return _Case()
        if record.status == messaging_pb2.MESSAGE_STATUS_ACCEPTED:
            return _Case(record, is_early=True)
        if not record.sealed_payload:
            return _Case()
        return _Case(record, is_exhausted=attempts >= MAX_ATTEMPTS)
