"""Device-list repair: the relay says that a message was encrypted for the wrong devices, or a
device without a session reported a message (see `healing`).

    DEVICES_CHANGED ──▶ case of the conversation ──fetch bundles──▶ turn: drop, establish, encrypt
                                                                    again ──▶ offered again

The message keeps its id; its payload comes from the outbox row, sealed. All messages of a
conversation that wait for the same repair share one fetch: every bundle costs the recipient a
one-time key. Nothing here holds a turn while it asks the relay.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from letterlock.relay.v1 import keys_pb2, mailbox_pb2
from letterlock.v1 import errors_pb2, messaging_pb2

from letterlockd.errors import LetterlockError
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.draft import Draft, Work
from letterlockd.gateway.first_contacts import BundleSource
from letterlockd.gateway.healing import ReportedWork
from letterlockd.gateway.held import Held
from letterlockd.gateway.numbers import Number, NumberBook
from letterlockd.gateway.outbox import Outbox, OutboxRow
from letterlockd.gateway.outgoing import establish, submission
from letterlockd.gateway.sending import Sending, failure
from letterlockd.gateway.tables import OUTBOX, account_of, outbox_key
from letterlockd.model.ids import AccountId, ConversationId, MessageId
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.records.v1.gateway_pb2 import OutboxRecord
from letterlockd.sealing.errors import KeyDestroyed
from letterlockd.sealing.keyring import DAY_MS, Keyring
from letterlockd.store.port import Check, CommitConflict, Delete

__all__ = ["Repair", "RepairWork"]

_MAX_TARGETS = 100
_RETRY_SECONDS = 2.0
_MAX_MARKS = 65_536


@dataclass(slots=True)
class _Case:
    """What is wrong with one conversation, as far as the relay has said."""

    user: AccountId
    rows: list[OutboxRow] = field(default_factory=list)
    reports: list[ReportedWork] = field(default_factory=list)
    wanted: set[int] = field(default_factory=set)
    extra: set[int] = field(default_factory=set)
    bundles: keys_pb2.AccountBundles | None = None
    anew: bool = False
    """All sessions are to be opened again: the store was restored."""

    @property
    def needs_bundles(self) -> bool:
        """Whether the relay is to be asked."""
        return self.anew or bool(self.wanted)


class RepairWork(Work):
    """Encrypts one outbox row again. The first row of a case brings its change of devices."""

    flow = "repair"

    __slots__ = (
        "_anew",
        "_bundles",
        "_extra",
        "_generation",
        "_gone",
        "_held",
        "_holds",
        "_now",
        "_row",
        "_sending",
        "_why",
    )

    def __init__(
        self,
        number: Number,
        row: OutboxRow,
        day_key: bytes,
        sending: Sending,
        held: Held,
        *,
        bundles: keys_pb2.AccountBundles | None,
        extra: Sequence[int],
        anew: bool,
        generation: int,
    ) -> None:
        conversation = ConversationId(row.record.conversation)
        super().__init__(number, conversation, None, row.record.expire_ms // DAY_MS, day_key)
        self._row = row
        self._sending = sending
        self._held = held
        self._holds = False
        self._bundles = bundles
        self._extra = extra
        self._anew = anew
        self._generation = generation
        self._gone = False
        self._now: OutboxRow | None = None
        self._why: messaging_pb2.Failure | None = None

    def plan(self, task: jobs.ConversationTask, known: bool) -> int:
        """Forget devices, open sessions, encrypt the sealed payload."""
        if self._gone or not known or not self._sending.is_open(self._row.sequence):
            return 0
        before = len(task.steps)
        if self._extra:
            task.steps.add().drop_devices.device_ids.extend(self._extra)
        if self._bundles is not None:
            opening = task.steps.add().establish
            establish(opening, self._bundles, complete=self._anew)
            opening.same_identity = self._row.record.attempt > 0
        step = task.steps.add().encrypt
        step.sealed_payload = self._row.record.sealed_payload
        step.content_context = self.conversation + self._row.record.message_id
        step.only_device = self._row.record.only_device
        return len(task.steps) - before

    def settle(self, results: Sequence[jobs.StepResult], draft: Draft) -> None:
        """Write the row in its new form."""
        self._now, self._why, self._holds = None, None, False
        for result in results:
            if result.established.identity_changed:
                draft.tell_identity_change(self._row.record.expire_ms)
        if results[-1].failure.name == "IdentityUnconfirmed" and not self._row.record.attempt:
            self._settle_unconfirmed(draft)
            return
        if any(result.HasField("failure") for result in results):
            bad = errors_pb2.ERROR_REASON_BAD_PRE_KEYS
            self._why = failure(messaging_pb2.HOP_GATEWAY, bad)
            return
        record = OutboxRecord()
        record.CopyFrom(self._row.record)
        resend = None
        if record.attempt:
            resend = mailbox_pb2.Resend(message_id=record.message_id, attempt=record.attempt)
        record.submission = submission(
            MessageId(record.submission_id or record.message_id),
            self.number.account,
            draft.user,
            record.expire_ms,
            results[-1].encrypted.envelopes,
            resend,
        )
        record.repairs += 1
        record.generation = self._generation
        record.unencrypted = False
        self._now = OutboxRow(self._row.sequence, record)
        draft.write(self._still_there(), self._now.put())

    def _settle_unconfirmed(self, draft: Draft) -> None:
        """Set the row aside until the business has confirmed the new identity key."""
        if self._held.is_full:
            unconfirmed = errors_pb2.ERROR_REASON_IDENTITY_UNCONFIRMED
            self._why = failure(messaging_pb2.HOP_GATEWAY, unconfirmed)
            return
        self._holds = True
        gone = Delete(OUTBOX, outbox_key(self._row.sequence))
        draft.write(self._still_there(), gone, self._held.put(self._row))

    def _still_there(self) -> Check:
        # A row is written once when accepted and once for each repair; if it is gone, it expired.
        version = 1 + self._row.record.repairs
        return Check(OUTBOX, outbox_key(self._row.sequence), version)

    def committed(self) -> None:
        """Offer it again, set it aside, or give it up."""
        if self._holds:
            self._held.added()
            self._sending.let_go(self._row)
        elif self._now is not None:
            self._sending.resubmit(self._now)
        elif self._why is not None:
            self._sending.fail([self._row], self._why)

    def failed(self, error: LetterlockError) -> bool:
        """Try again, until the message expires."""
        return True

    def owns(self, conflict: CommitConflict) -> bool:
        """Whether the row is gone."""
        return conflict.table == OUTBOX and conflict.key == outbox_key(self._row.sequence)

    async def conflicted(self, conflict: CommitConflict) -> None:
        """Nothing is left to do."""
        self._gone = True


class Repair:
    """Cases of all conversations; bounded by the rows that may be open at the relay."""

    def __init__(
        self,
        *,
        source: BundleSource,
        numbers: NumberBook,
        keyring: Keyring,
        outbox: Outbox,
        held: Held,
        put: Callable[[RepairWork | ReportedWork], None],
        counters: Counters,
    ) -> None:
        self._source = source
        self._numbers = numbers
        self._keyring = keyring
        self._outbox = outbox
        self._held = held
        self._put = put
        self._counters = counters
        self._cases: OrderedDict[ConversationId, _Case] = OrderedDict()
        self._repaired_before: OrderedDict[ConversationId, int] = OrderedDict()
        self._news = asyncio.Event()
        self._sending: Sending

    def connect(self, sending: Sending) -> None:
        """Name where repaired rows go."""
        self._sending = sending

    def add(self, row: OutboxRow, result: mailbox_pb2.SubmissionResult) -> None:
        """The relay refused `row` with DEVICES_CHANGED."""
        case = self._case_of(row)
        # A row from before the last repair was refused for what is repaired already.
        repaired_before = self._repaired_before.get(ConversationId(row.record.conversation), 0)
        is_old_news = row.sequence < repaired_before
        if row.record.repairs > 0 or not is_old_news:
            case.wanted.update(result.missing_device_ids, result.stale_device_ids)
            case.extra.update(result.extra_device_ids)
        self._news.set()

    def renew(self, row: OutboxRow) -> None:
        """`row` is not encrypted, or was so before the store was restored: all sessions are to be
        opened again before anything is encrypted (I2)."""
        self._case_of(row).anew = True
        self._news.set()

    def introduce(self, work: ReportedWork) -> None:
        """A device that reported a message has no session now."""
        if work.user is not None:
            case = self._cases.setdefault(work.conversation, _Case(work.user))
            case.reports.append(work)
            case.wanted.add(work.device)
            self._news.set()

    async def run(self) -> None:
        """Repair until cancelled."""
        while True:
            while not self._cases:
                self._news.clear()
                await self._news.wait()
            count = min(len(self._cases), _MAX_TARGETS)
            cases = dict(self._cases.popitem(last=False) for _ in range(count))
            asking = {c: case for c, case in cases.items() if case.needs_bundles}
            if asking:
                await self._fetch(asking)
            for conversation, case in cases.items():
                await self._begin(conversation, case)

    def _case_of(self, row: OutboxRow) -> _Case:
        """The case of its conversation, which it joins."""
        conversation = ConversationId(row.record.conversation)
        case = self._cases.get(conversation)
        if case is None:
            user = mailbox_pb2.Submission.FromString(row.record.submission).recipient_account_id
            case = self._cases[conversation] = _Case(AccountId(user))
        case.rows.append(row)
        return case

    async def _fetch(self, cases: dict[ConversationId, _Case]) -> None:
        targets = [
            keys_pb2.BundleTarget(
                account_id=case.user, device_ids=[] if case.anew else sorted(case.wanted)
            )
            for case in cases.values()
        ]
        while True:
            try:
                results = await self._source.fetch_bundles(targets)
                break
            except LetterlockError:
                await asyncio.sleep(_RETRY_SECONDS)
        for (conversation, case), result in zip(list(cases.items()), results, strict=True):
            if result.HasField("bundles"):
                case.bundles = result.bundles
            elif result.refused.reason == errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT:
                self._give_up(case)
            else:
                self._come_again(conversation, case)

    def _give_up(self, case: _Case) -> None:
        unknown = errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT
        self._sending.fail(case.rows, failure(messaging_pb2.HOP_RELAY, unknown))
        case.rows = []
        for work in case.reports:
            work.give_up()
            self._put(work)
        case.reports = []

    def _come_again(self, conversation: ConversationId, case: _Case) -> None:
        """A rate limit: ask with the next round that comes, at the earliest after a pause."""
        waiting = _Case(case.user, case.rows, case.reports, case.wanted, case.extra, anew=case.anew)
        case.rows, case.reports = [], []

        def again() -> None:
            later = self._cases.setdefault(conversation, _Case(waiting.user))
            later.rows[:0] = waiting.rows
            later.reports[:0] = waiting.reports
            later.wanted |= waiting.wanted
            later.extra |= waiting.extra
            later.anew |= waiting.anew
            self._news.set()

        asyncio.get_running_loop().call_later(_RETRY_SECONDS, again)

    async def _begin(self, conversation: ConversationId, case: _Case) -> None:
        number = await self._numbers.get(account_of(conversation))
        if number is None:  # it is being removed, which waits until none of its rows is open
            forbidden = errors_pb2.ERROR_REASON_FORBIDDEN
            self._sending.fail(case.rows, failure(messaging_pb2.HOP_GATEWAY, forbidden))
            for work in case.reports:
                work.end()
            return
        if case.rows:
            await self._repair(number, conversation, case)
        for work in case.reports:
            work.introduce(case.bundles)
            self._put(work)
            case.bundles = None

    async def _repair(self, number: Number, conversation: ConversationId, case: _Case) -> None:
        self._counters.repairs += 1
        self._repaired_before[conversation] = self._outbox.next_sequence
        self._repaired_before.move_to_end(conversation)
        while len(self._repaired_before) > _MAX_MARKS:
            self._repaired_before.popitem(last=False)
        bundles, extra = case.bundles, sorted(case.extra)
        for row in sorted(case.rows):
            try:
                day_key = await self._keyring.day_key(number.account, row.record.expire_ms)
            except KeyDestroyed:
                continue  # it has expired: the next look at what is due settles it
            self._put(
                RepairWork(
                    number,
                    row,
                    day_key.key,
                    self._sending,
                    self._held,
                    bundles=bundles,
                    extra=extra,
                    anew=case.anew,
                    generation=self._outbox.generation,
                )
            )
            case.bundles = bundles = None
            extra = []
