"""Carries the outbox to the relay, in order, and makes of its answers what the business is told.

    outbox ──take──▶ open ──offer──▶ uplink ──answer──▶ durable there   ──▶ SENT, row deleted
                                                    ├── devices changed ──▶ repair, offered again
                                                    ├── busy            ──▶ offered again later,
                                                    │                       its conversation with it
                                                    └── refused         ──▶ FAILED or EXPIRED

At most `max_unanswered` rows are taken and not answered, and four times as many answered and not
settled by a commit. A lost stream is the uplink's affair: what was not answered is said again, and
the relay knows it by its message id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from letterlock.relay.v1 import mailbox_pb2
from letterlock.v1 import errors_pb2, messaging_pb2

from letterlockd.clock import Clock
from letterlockd.gateway.news import Advance
from letterlockd.gateway.outbox import Outbox, OutboxRow
from letterlockd.gateway.progress import Progress
from letterlockd.gateway.put_off import PutOff
from letterlockd.gateway.statuses import Status
from letterlockd.gateway.tables import OUTBOX, account_of, outbox_key
from letterlockd.legs import Reading
from letterlockd.model.ids import ConversationId, MessageId
from letterlockd.store.port import Delete
from letterlockd.traces import Traces
from letterlockd.uplink import Answered, Uplink

__all__ = ["Sending", "failure"]

_MAX_TAKE = 256
_MAX_REPAIRS = 5
"""A list of devices that changes more often than this while one message is on its way does not
change by itself."""

_SETTLING_SHARE = 4
"""An answered row waits for its status a while in traffic, and takes nothing but memory."""

_LONGEST_RETRY_MS = 60_000
_DEFAULT_RETRY_MS = 1_000

_BUSY = frozenset(
    {
        errors_pb2.ERROR_REASON_RATE_LIMITED,
        errors_pb2.ERROR_REASON_QUEUE_FULL,
        errors_pb2.ERROR_REASON_STORAGE_FULL,
        errors_pb2.ERROR_REASON_STORAGE_UNAVAILABLE,
        errors_pb2.ERROR_REASON_DRAINING,
        errors_pb2.ERROR_REASON_INTERNAL,
    }
)
"""Reasons that are about the relay's state and not the message's: they pass, or the message
expires."""

_RETRYABLE = frozenset(
    {
        errors_pb2.ERROR_REASON_MAILBOX_FULL,
        errors_pb2.ERROR_REASON_DEVICES_CHANGED,
        errors_pb2.ERROR_REASON_IDENTITY_UNCONFIRMED,
        errors_pb2.ERROR_REASON_UNDECRYPTABLE,
    }
)

_FAILED = messaging_pb2.MESSAGE_STATUS_FAILED
_EXPIRED = messaging_pb2.MESSAGE_STATUS_EXPIRED
_SENT = messaging_pb2.MESSAGE_STATUS_SENT

_News = tuple[OutboxRow, Status, messaging_pb2.Failure | None]
_Record = Callable[[Sequence[Advance], Sequence[Delete], Callable[[], None]], None]


class Sending:
    """Implements the uplink's `Traffic.answered` and `lost`. `repair`: what to do with a row whose
    recipient's devices have changed; `renew`: with one that is not encrypted for now."""

    def __init__(
        self,
        outbox: Outbox,
        uplink: Uplink[int],
        progress: Progress,
        clock: Clock,
        *,
        max_unanswered: int,
        repair: Callable[[OutboxRow, mailbox_pb2.SubmissionResult], None],
        renew: Callable[[OutboxRow], None],
        traces: Traces | None = None,
    ) -> None:
        self._traces = traces
        self._outbox = outbox
        self._uplink = uplink
        self._progress = progress
        self._clock = clock
        self._max = max_unanswered
        self._repair = repair
        self._renew = renew
        self._open: dict[int, OutboxRow] = {}
        self._at_relay: set[int] = set()
        self._settling: set[int] = set()
        self._put_off = PutOff()
        self._again: asyncio.Handle | None = None
        self._answered = 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def open(self) -> int:
        """Rows that were taken and are not settled."""
        return len(self._open)

    @property
    def reading(self) -> Reading:
        """What the relay has yet to take. That it is busy is no answer."""
        return Reading(len(self._at_relay) + len(self._put_off), self._answered)

    def is_open(self, sequence: int) -> bool:
        """Whether this row was taken and is not settled."""
        return sequence in self._open

    async def run(self) -> None:
        """Take rows and offer them until cancelled."""
        try:
            while True:
                await self._room.wait()
                rows = await self._outbox.take(min(_MAX_TAKE, max(1, self._free())))
                now_ms = self._clock.now_ms()
                for row in rows:
                    self._open[row.sequence] = row
                    if row.record.expire_ms <= now_ms:
                        continue
                    if self._outbox.is_outdated(row):
                        self._renew(row)
                    else:
                        self._offer(row)
                self._settle([_expired(r) for r in rows if r.record.expire_ms <= now_ms])
                if self._free() <= 0:
                    self._room.clear()
        finally:
            if self._again is not None:
                self._again.cancel()

    def answered(self, answers: Sequence[Answered[int]]) -> None:
        """The relay's answers."""
        news: list[_News] = []
        busy: list[tuple[OutboxRow, int]] = []
        for sequence, result in answers:
            self._at_relay.discard(sequence)
            row = self._open.get(sequence)
            if row is None:
                continue
            if self._traces is not None:
                self._traces.end("submit", row.record.message_id)
            if not result.HasField("refused"):
                news.append((row, _SENT, None))
            elif result.refused.reason in _BUSY:
                busy.append((row, result.refused.retry_after.ToMilliseconds()))
            elif (refused := self._refused(row, result)) is not None:
                news.append(refused)
        self._answered += len(answers) - len(busy)
        self._settle(news)
        if busy:
            self._offer_later(busy)

    def lost(self) -> None:
        """The stream is lost: what was on its way behind rows that are put off waits with them,
        or the next stream would take it first."""
        if not self._put_off:
            return
        back = self._at_relay.intersection(self._put_off.out)
        self._uplink.flight.withdraw(back)
        self._at_relay -= back
        for sequence in back:
            self._put_off.wait(self._open[sequence])
        self._look_again()

    def resubmit(self, row: OutboxRow) -> None:
        """Offer a row again in its new form."""
        if row.sequence in self._open:
            self._open[row.sequence] = row
            self._offer(row)

    def fail(self, rows: Sequence[OutboxRow], why: messaging_pb2.Failure) -> None:
        """Give messages up."""
        self._settle([(row, _FAILED, why) for row in rows if row.sequence in self._open])

    def let_go(self, row: OutboxRow) -> None:
        """The row is deleted, and not settled: the message waits elsewhere."""
        self._close([row.sequence])
        if self._put_off:
            self._put_off.gone(row)
            self._look_again()

    def expire(self, row: OutboxRow) -> bool:
        """Give up a row whose time is over. False: the relay has it, or will answer."""
        sequence = row.sequence
        if sequence in self._settling or (sequence in self._at_relay and self._uplink.connected):
            return False
        if not self._outbox.taken(sequence):
            self._outbox.forget(sequence)
        self._uplink.flight.withdraw({sequence})
        self._at_relay.discard(sequence)
        self._open[sequence] = row
        self._settle([_expired(row)])
        return True

    def _offer(self, row: OutboxRow) -> None:
        if self._put_off and self._put_off.wait(row):
            self._look_again()
            return
        self._at_relay.add(row.sequence)
        record = row.record
        account = account_of(ConversationId(record.conversation))
        submission_id = record.submission_id or record.message_id
        if self._traces is not None:
            self._traces.begin("submit", record.message_id)
        self._uplink.offer(row.sequence, account, submission_id, record.submission)

    def _refused(self, row: OutboxRow, result: mailbox_pb2.SubmissionResult) -> _News | None:
        reason = result.refused.reason
        if row.record.only_device in result.extra_device_ids:
            return row, _SENT, None  # nobody is there any more to send it to once more
        if reason == errors_pb2.ERROR_REASON_DEVICES_CHANGED and row.record.repairs < _MAX_REPAIRS:
            self._repair(row, result)
            return None
        if reason == errors_pb2.ERROR_REASON_EXPIRED:
            return _expired(row, messaging_pb2.HOP_RELAY)
        return row, _FAILED, failure(messaging_pb2.HOP_RELAY, reason)

    def _offer_later(self, busy: Sequence[tuple[OutboxRow, int]]) -> None:
        now_s = asyncio.get_running_loop().time()
        refused = [
            (row, now_s + min(retry_ms or _DEFAULT_RETRY_MS, _LONGEST_RETRY_MS) / 1_000)
            for row, retry_ms in busy
        ]
        not_settled = (row for row in self._open.values() if row.sequence not in self._settling)
        self._put_off.refused(refused, not_settled)
        self._look_again()

    def _look_again(self) -> None:
        """See what is due, once for all that changes in this turn of the loop."""
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.get_running_loop().call_soon(self._offer_again)

    def _offer_again(self) -> None:
        loop = asyncio.get_running_loop()
        for row in self._put_off.due(loop.time()):
            self._offer(row)
        next_s = self._put_off.next_s
        self._again = None if next_s is None else loop.call_at(next_s, self._offer_again)

    def _settle(self, news: Sequence[_News]) -> None:
        """Commit what became of rows; then they are closed. SENT may wait for DELIVERED."""
        sent = [one for one in news if one[1] == _SENT]
        if sent:
            self._record(sent, self._progress.record_overtakable)
        if len(sent) < len(news):
            self._record([one for one in news if one[1] != _SENT], self._progress.record)

    def _record(self, news: Sequence[_News], record: _Record) -> None:
        advances = [
            Advance(
                MessageId(row.record.message_id),
                status,
                ConversationId(row.record.conversation),
                why,
                row.record.sealed_payload,
            )
            for row, status, why in news
        ]
        deletes = [Delete(OUTBOX, outbox_key(row.sequence)) for row, _, _ in news]
        sequences = [row.sequence for row, _, _ in news]
        self._settling.update(sequences)
        if self._put_off:
            for row, _, _ in news:
                self._put_off.gone(row)
            self._look_again()
        self._make_room()
        record(advances, deletes, lambda: self._close(sequences))

    def _close(self, sequences: Sequence[int]) -> None:
        closed = [s for s in sequences if self._open.pop(s, None) is not None]
        self._settling.difference_update(sequences)
        self._outbox.removed(len(closed))
        self._make_room()

    def _free(self) -> int:
        settling = len(self._settling)
        return self._max - max(len(self._open) - settling, settling // _SETTLING_SHARE)

    def _make_room(self) -> None:
        if self._free() > 0:
            self._room.set()


def failure(
    hop: messaging_pb2.Hop.ValueType, reason: errors_pb2.ErrorReason.ValueType
) -> messaging_pb2.Failure:
    """Why an accepted message failed, and whether the same may succeed under a new key."""
    return messaging_pb2.Failure(hop=hop, reason=reason, retryable=reason in _RETRYABLE)


def _expired(row: OutboxRow, hop: messaging_pb2.Hop.ValueType = messaging_pb2.HOP_GATEWAY) -> _News:
    why = messaging_pb2.Failure(hop=hop, reason=errors_pb2.ERROR_REASON_EXPIRED, retryable=True)
    return row, _EXPIRED, why
