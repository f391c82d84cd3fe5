"""Takes submissions: judged against what is true now, then staged in the `journal`.

    frame ──▶ accounts and mailboxes it names are known ──▶ each: shape, sender, judge, rate, room
                                                               │ staged, or refused
                        refused for now ──▶ so is what follows it (see `refused_pairs`)
              refused, but accepted before under this id ──▶ the first answer, as for any repeat

What is refused here is answered at once and leaves no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from letterlock.relay.v1.mailbox_pb2 import Submission, SubmissionResult
from letterlock.v1 import errors_pb2

from letterlockd.clock import Clock
from letterlockd.errors import BusyError
from letterlockd.records.v1.relay_pb2 import SubmittedMessage
from letterlockd.relay.accounts import Account
from letterlockd.relay.connection import Connection, Outgoing
from letterlockd.relay.credentials import Caller, GatewayCaller
from letterlockd.relay.directory import Change, Directory, unchanged
from letterlockd.relay.item_ids import ItemIds
from letterlockd.relay.items import Debt, envelope_item, write_row
from letterlockd.relay.journal import Journal, Staged
from letterlockd.relay.levels import Levels
from letterlockd.relay.rates import RateLimiter
from letterlockd.relay.refusals import mailbox_full, rate_limited, refused
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.submissions import (
    Sender,
    acceptance,
    answer,
    expiry_ms,
    invalid_answer,
    is_healing,
    judge,
    shape_fault,
)
from letterlockd.relay.switchboard import Switchboard
from letterlockd.relay.tables import MAILBOXES, SUBMITTED, item_key
from letterlockd.relay.usage import Counted
from letterlockd.store.port import ABSENT, Check, Put, Store

__all__ = ["Intake"]

_RETRY_MS = 1_000

_Accounts = Mapping[bytes, Account | None]


class Intake:
    """Judges and stages."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        levels: Levels,
        ids: ItemIds,
        journal: Journal,
        switchboard: Switchboard,
        clock: Clock,
        settings: RelaySettings,
    ) -> None:
        self._store = store
        self._directory = directory
        self._levels = levels
        self._ids = ids
        self._journal = journal
        self._switchboard = switchboard
        self._clock = clock
        self._settings = settings
        self._limits = RateLimiter(settings.cached_buckets)
        journal.judge_again = self._judge_again

    async def submit(
        self, connection: Connection, caller: Caller, submissions: Sequence[Submission]
    ) -> None:
        """Decide each submission of a frame; every one is answered on the connection once.

        Raises `BusyError` (QUEUE_FULL): too many were refused and did not come again.
        """
        if len(connection.refused) > self._settings.max_refused:
            raise BusyError(
                "too many refused submissions did not come again",
                retry_after_ms=_RETRY_MS,
                reason="QUEUE_FULL",
            )
        connection.unanswered += len(submissions)
        accounts = await self._accounts_of(caller, submissions)
        await self._journal.room()
        await self._ids.ensure(len(submissions) * self._settings.max_devices)
        now_ms = self._clock.now_ms()
        refusals: list[SubmissionResult] = []
        senders: dict[bytes, Sender | None] = {}
        for submission in submissions:
            sender = self._sender(connection, caller, submission, accounts, senders)
            result = self._decide(connection, sender, submission, accounts, now_ms)
            if result is not None:
                refusals.append(result)
        if refusals:
            await self._refuse(connection, caller, refusals)

    def _decide(
        self,
        connection: Connection,
        sender: Sender | None,
        submission: Submission,
        accounts: _Accounts,
        now_ms: int,
    ) -> SubmissionResult | None:
        """Stage it and give None, or give the refusal."""
        if fault := shape_fault(submission, self._settings.max_devices):
            return invalid_answer(submission, *fault)
        if sender is None:
            text = "sender_account_id is not one of the caller's accounts"
            return answer(submission, refused(errors_pb2.ERROR_REASON_FORBIDDEN, text))
        if connection.refused and (refusal := connection.refused.behind(submission)):
            return answer(submission, refusal)
        recipient = accounts.get(submission.recipient_account_id)
        result = judge(submission, recipient, now_ms)
        if result is not None or recipient is None:
            return result
        if wait := self._over_rate(connection, sender):
            refusal = rate_limited(wait)
            if sender.is_business:
                connection.refused.add(submission, refusal)
            return answer(submission, refusal)
        if not submission.ephemeral and not self._fits(submission, recipient):
            self._journal.counters.mailbox_full += 1
            return answer(submission, mailbox_full(self._settings.mailbox_full_retry_ms))
        self._journal.stage(self._staged(connection, sender, submission, recipient, now_ms))
        return None

    def _staged(
        self,
        connection: Connection,
        sender: Sender,
        submission: Submission,
        recipient: Account,
        now_ms: int,
    ) -> Staged:
        expires_ms = expiry_ms(submission, recipient, now_ms, self._settings)
        message_id, envelopes = submission.message_id, submission.envelopes
        resend = submission.resend if submission.HasField("resend") else None
        shared = len(envelopes) > 1
        stored = not submission.ephemeral
        debt = None
        if submission.receipt_wanted and stored:
            named = message_id if resend is None else resend.message_id
            debt = Debt(sender.mailbox, named, sender.account_id, recipient.account_id, shared)
        commit: list[Change] = []
        if stored:
            state = SubmittedMessage(copies=len(envelopes)).SerializeToString() if shared else b""
            key = sender.account_id + message_id
            commit.append(Check(SUBMITTED, key, ABSENT))
            commit.append(unchanged(recipient))
            commit.append(Put(SUBMITTED, key, state, expires_ms))
        items: list[Outgoing] = []
        total = 0
        for envelope in envelopes:
            mailbox = recipient.devices[envelope.device_id].mailbox
            item_id = self._ids.take()
            kept, delivery = envelope_item(
                item_id,
                envelope,
                message_id=message_id,
                sender=sender.account_id,
                sender_device_id=sender.device_id,
                recipient=recipient.account_id,
                accept_ms=now_ms,
                expire_ms=expires_ms,
                sender_number=sender.number if recipient.is_business else "",
                resend=resend,
            )
            size = 0
            if stored:
                row = write_row(kept, debt, recipient.account_id)
                size = len(row)
                commit.append(Put(MAILBOXES, item_key(mailbox, item_id), row, expires_ms))
            items.append(Outgoing(mailbox, item_id, delivery, size, debt))
            total += len(envelope.body)
        # Nobody pays for mending a session.
        counts = stored and not is_healing(submission)
        counted = _counted(sender, recipient, total) if counts else ()
        said = acceptance(message_id, submission.sender_account_id)
        return Staged(connection, submission, said, sender, commit, items, counted, total)

    async def _accounts_of(self, caller: Caller, submissions: Sequence[Submission]) -> _Accounts:
        """The accounts that a frame names, with their mailboxes' levels known."""
        ids = {submission.recipient_account_id for submission in submissions}
        if isinstance(caller, GatewayCaller):
            ids |= {submission.sender_account_id for submission in submissions}
        else:
            ids.add(caller.account_id)
        accounts = await self._directory.get_many(id_ for id_ in ids if len(id_) == 16)
        mailboxes = {
            device.mailbox
            for account in accounts.values()
            if account is not None
            for device in account.devices.values()
        }
        await self._levels.know(mailboxes)
        return accounts

    def _sender(
        self,
        connection: Connection,
        caller: Caller,
        submission: Submission,
        accounts: _Accounts,
        known: dict[bytes, Sender | None],
    ) -> Sender | None:
        """Who the submission is from; None when the caller may not say so."""
        id_ = submission.sender_account_id
        if id_ not in known:
            known[id_] = _new_sender(connection, caller, id_, accounts)
        return known[id_]

    def _fits(self, submission: Submission, recipient: Account) -> bool:
        settings = self._settings
        if recipient.is_business:
            items, size = settings.gateway_mailbox_items, settings.gateway_mailbox_bytes
        else:
            items, size = settings.device_mailbox_items, settings.device_mailbox_bytes
        for envelope in submission.envelopes:
            mailbox, length = recipient.devices[envelope.device_id].mailbox, len(envelope.body)
            if not self._levels.fits(mailbox, length, max_items=items, max_bytes=size):
                return False
        return True

    def _over_rate(self, connection: Connection, sender: Sender) -> int:
        business = sender.is_business
        settings = self._settings
        rate = settings.submissions_per_gateway if business else settings.submissions_per_device
        if rate is None:
            return 0
        return self._limits.take(connection.mailbox, rate, self._clock.monotonic())

    async def _refuse(
        self, connection: Connection, caller: Caller, refusals: Sequence[SubmissionResult]
    ) -> None:
        """Answer refusals, but a repeat of what was accepted gets the first answer."""
        keys = [_submitted_key(caller, result) for result in refusals]
        records = await self._store.get_many(SUBMITTED, keys)
        for result, record in zip(refusals, records, strict=True):
            if record is not None:
                result = SubmissionResult(
                    message_id=result.message_id, sender_account_id=result.sender_account_id
                )
            connection.answered(result.SerializeToString())

    async def _judge_again(self, staged: Sequence[Staged]) -> None:
        """Judge submissions against their recipients as they are now."""
        for one in staged:
            self._directory.forget(one.submission.recipient_account_id)
        ids = {one.submission.recipient_account_id for one in staged}
        accounts = await self._directory.get_many(ids)
        await self._ids.ensure(len(staged) * self._settings.max_devices)
        now_ms = self._clock.now_ms()
        for one in staged:
            result = self._decide(one.connection, one.sender, one.submission, accounts, now_ms)
            if result is not None:
                one.connection.answered(result.SerializeToString())


def _new_sender(
    connection: Connection, caller: Caller, id_: bytes, accounts: _Accounts
) -> Sender | None:
    if isinstance(caller, GatewayCaller):
        account = accounts.get(id_)
        if account is None or account.gateway_id != caller.gateway_id:
            return None
        return Sender(id_, 1, connection.mailbox, is_business=True)
    own = accounts.get(caller.account_id)
    if own is None or id_ not in (b"", caller.account_id):
        return None
    return Sender(caller.account_id, caller.device_id, connection.mailbox, number=own.number)


def _submitted_key(caller: Caller, result: SubmissionResult) -> bytes:
    own = b"" if isinstance(caller, GatewayCaller) else caller.account_id
    # One byte in front cannot be a key of the table: for ids of a wrong length, which no row has.
    key = (own or result.sender_account_id) + result.message_id
    return key if len(key) == 32 else b"\0"


def _counted(sender: Sender, recipient: Account, size: int) -> Sequence[Counted]:
    counted = []
    if sender.is_business:
        counted.append(Counted(sender.account_id, True, size))
    if recipient.is_business:
        counted.append(Counted(recipient.account_id, False, size))
    return counted
