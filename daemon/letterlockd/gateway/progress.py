"""The one writer of message statuses after acceptance: news in, rows and events out.

    results, receipts, expiry ──▶ queue ──▶ batch: read, advance (I7), commit ──▶ told
       └── SENT, in traffic ──▶ overtakable ──▲ a moment later, if not DELIVERED by then

One batch at a time, so two pieces of news about one message never race. Many news become one
transaction and one inbox row a number: after a batch the next one gathers for a moment, and news
that better ones may overtake are kept back, since most messages are delivered by then, and one
change and one event tell so. News of a single message are told at once.
News that belong to a conversation's turn (a read receipt) bring that turn's own writes and are
committed as one with them.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from letterlock.v1 import messaging_pb2 as api

from letterlockd import failpoints
from letterlockd.clock import Clock
from letterlockd.errors import LetterlockError
from letterlockd.gateway.inbox import Inbox, Staged
from letterlockd.gateway.milestones import Milestones
from letterlockd.gateway.news import MIN_EVENT_LIFE_MS, Advance, apply, fill_event
from letterlockd.gateway.overtakable import Overtakable
from letterlockd.gateway.recent import Recent, Written
from letterlockd.gateway.statuses import Status
from letterlockd.gateway.tables import MESSAGES, account_of, pseudonym_part
from letterlockd.model.ids import AccountId, ConversationId, MessageId
from letterlockd.records.v1 import gateway_pb2 as records
from letterlockd.records.v1 import inbox_pb2
from letterlockd.store.port import Check, Delete, Outcome, Put, Store, StoreFull

__all__ = ["Progress"]

_MAX_BATCH = 1_024

_GATHER_SECONDS = 0.05
"""From one batch's start to the next one's at least. Statuses can wait, and messages share two
cores with them: told one by one they cost each message twice its time on the way."""

_OVERTAKE_SECONDS = 0.3
"""How long SENT is kept back in traffic. A message's way to a connected device and back takes
some 20 ms, and ten times that where queues have built up."""

_MAX_OVERTAKABLE = 8_192
"""Messages whose SENT is kept back: some 8 MB with their payloads."""


@dataclass(slots=True)
class _Group:
    advances: Sequence[Advance]
    operations: Sequence[Put | Delete | Check]
    done: Callable[[], None] | None = None
    outcome: asyncio.Future[Outcome] | None = None


@dataclass(slots=True)
class _Current:
    written: Written
    was: Status


@dataclass(slots=True)
class _Batch:
    """One transaction in the making."""

    groups: list[_Group] = field(default_factory=list)
    operations: list[Put | Delete | Check] = field(default_factory=list)
    staged: list[Staged] = field(default_factory=list)
    changed: dict[MessageId, _Current] = field(default_factory=dict)


class Progress:
    """Statuses of all sent messages. The queue is bounded by those who put: the relay's
    windows, and one group for each turn."""

    def __init__(self, store: Store, inbox: Inbox, clock: Clock, milestones: Milestones) -> None:
        self._store = store
        self._inbox = inbox
        self._clock = clock
        self._milestones = milestones
        self._recent = Recent()
        self._queue: deque[_Group] = deque()
        self._overtakable: Overtakable[_Group] = Overtakable(_MAX_OVERTAKABLE)
        self._gathering_until_s = -math.inf
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def accepted(self, message_id: MessageId, written: Written, now_ms: int) -> None:
        """A message's first record is durable: news about it need not read it back."""
        self._recent.keep(message_id, written)
        self._milestones.accepted(message_id, written.record, now_ms)

    def record(
        self,
        advances: Sequence[Advance],
        operations: Sequence[Put | Delete],
        done: Callable[[], None],
    ) -> None:
        """Commit news with unconditional writes, some time soon, then call `done`."""
        self._put(_Group(advances, operations, done=done))

    def record_overtakable(
        self,
        advances: Sequence[Advance],
        operations: Sequence[Put | Delete],
        done: Callable[[], None],
    ) -> None:
        """As `record`; in traffic a moment later, and without news of what is further by then."""
        group = _Group(advances, operations, done=done)
        now_s = self._clock.monotonic()
        if now_s < self._gathering_until_s:
            until_s = now_s + _OVERTAKE_SECONDS
            self._overtakable.add(group, (news.message_id for news in advances), until_s)
            self._idle.clear()
            self._news.set()
        else:
            self._put(group)

    async def record_with(
        self, advances: Sequence[Advance], operations: Sequence[Put | Delete | Check]
    ) -> Outcome:
        """Commit news as one transaction with a turn's writes. Raises what `Store.commit` does."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._put(_Group(advances, operations, outcome=outcome))
        return await outcome

    async def run(self) -> None:
        """Work batches until cancelled."""
        while True:
            await self._wait()
            await self._gather(self._gathering_until_s - self._clock.monotonic())
            self._gathering_until_s = self._clock.monotonic() + _GATHER_SECONDS
            await self._work(self._next_groups())

    async def idle(self) -> None:
        """Wait until there is nothing left to commit, and commit at once what was kept back."""
        self._take_due(math.inf)
        self._hurry.set()
        await self._idle.wait()

    async def _wait(self) -> None:
        """Until there is something in the queue."""
        self._take_due(self._clock.monotonic())
        while not self._queue:
            self._news.clear()
            until_s = self._overtakable.next_s
            if until_s is None:
                self._idle.set()
                await self._news.wait()
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(until_s - self._clock.monotonic()):
                        await self._news.wait()
            self._take_due(self._clock.monotonic())

    def _take_due(self, now_s: float) -> None:
        for group, left in self._overtakable.due(now_s):
            group.advances = [news for news in group.advances if news.message_id in left]
            self._put(group)

    async def _gather(self, seconds: float) -> None:
        """Let news come together, unless a turn waits for its own: it holds a conversation."""
        if seconds > 0 and all(group.outcome is None for group in self._queue):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._hurry.wait()
        self._hurry.clear()

    def _put(self, group: _Group) -> None:
        self._queue.append(group)
        self._idle.clear()
        self._news.set()
        if group.outcome is not None:
            self._hurry.set()

    def _next_groups(self) -> list[_Group]:
        """What fits in a batch. A turn's own group fails alone, so nothing in the batch may build
        on what it would have changed: then it waits for the next batch, with all behind it."""
        groups: list[_Group] = []
        conditional: set[MessageId] = set()
        size = 0
        while self._queue and size < _MAX_BATCH:
            group = self._queue[0]
            own = group.outcome is not None
            if own or conditional:  # seldom, so that most news are not looked at here
                ids = _ids_of([group])
                if ids & (_ids_of(groups) if own else conditional):
                    break
                conditional |= ids if own else set()
            size += len(group.advances)
            groups.append(self._queue.popleft())
        return groups

    async def _work(self, groups: list[_Group]) -> None:
        while True:
            current = await self._read(groups)
            batches = self._batches(groups, current)
            try:
                await self._commit(batches)
            except StoreFull as full:
                _abort(batches)
                groups = _without_waiting(groups, full)
                if not groups:
                    return
                if not _drop_payloads(groups):
                    await asyncio.sleep((full.retry_after_ms or 1_000) / 1_000)
                continue
            except BaseException:
                _abort(batches)
                raise
            for message_id, message in current.items():
                if message.written.record.status != message.was:
                    self._milestones.changed(message_id, message.written.record, message.was)
            return

    async def _commit(self, batches: Sequence[_Batch]) -> None:
        failpoints.hit("gateway.sent.before_commit")
        writing = [batch for batch in batches if batch.operations]
        outcomes = await self._store.commit([batch.operations for batch in writing])
        failpoints.hit("gateway.sent.after_commit")
        for batch, outcome in zip(writing, outcomes, strict=True):
            _resolve(batch, outcome)
            if outcome is None:
                for message_id, message in batch.changed.items():
                    self._recent.keep(message_id, message.written)
                    if message.written.record.status > api.MESSAGE_STATUS_SENT:
                        self._overtakable.overtaken(message_id)
        for batch in batches:
            if not batch.operations:
                _resolve(batch, None)

    async def _read(self, groups: Iterable[_Group]) -> dict[MessageId, _Current]:
        now_ms = self._clock.now_ms()
        current: dict[MessageId, _Current] = {}
        unknown: dict[MessageId, None] = {}
        for group in groups:
            for news in group.advances:
                message_id = news.message_id
                if message_id in current or message_id in unknown:
                    continue
                written = self._recent.take(message_id, now_ms)
                if written is None:
                    unknown[message_id] = None
                else:
                    current[message_id] = _Current(written, written.record.status)
        rows = await self._store.get_many(MESSAGES, list(unknown)) if unknown else []
        for message_id, row in zip(unknown, rows, strict=True):
            if row is not None:  # it outlived its retention otherwise: nobody is to be told
                record = records.MessageRecord.FromString(row.value)
                written = Written(record, row.expires_at_ms)
                current[message_id] = _Current(written, record.status)
        return current

    def _batches(
        self, groups: Sequence[_Group], current: dict[MessageId, _Current]
    ) -> list[_Batch]:
        """One transaction for all that cannot fail, and one for each that can."""
        now_ms = self._clock.now_ms()
        together = _Batch()
        batches = [together] if any(group.outcome is None for group in groups) else []
        for group in groups:
            if group.outcome is None:
                together.groups.append(group)
            else:
                batches.append(_Batch([group]))
        for batch in batches:
            self._fill(batch, current, now_ms)
        return batches

    def _fill(self, batch: _Batch, current: dict[MessageId, _Current], now_ms: int) -> None:
        changed = batch.changed
        for group in batch.groups:
            batch.operations += group.operations
            for news in group.advances:
                message = current.get(news.message_id)
                if message is not None and apply(message.written.record, news, now_ms):
                    changed[news.message_id] = message
        events: dict[AccountId, inbox_pb2.StoredEvents] = {}
        ends: dict[AccountId, int] = {}
        for message_id, message in changed.items():
            record, expires_at_ms = message.written
            value = record.SerializeToString()
            batch.operations.append(Put(MESSAGES, message_id, value, expires_at_ms))
            if record.status == message.was:
                continue
            conversation = ConversationId(record.conversation)
            account, pseudonym = account_of(conversation), pseudonym_part(conversation)
            if (told := events.get(account)) is None:
                told = events[account] = inbox_pb2.StoredEvents()
                ends[account] = now_ms + MIN_EVENT_LIFE_MS
            fill_event(told.events.add(), message_id, record, pseudonym)
            ends[account] = max(ends[account], expires_at_ms)
        for account, told in events.items():
            staged = self._inbox.stage(account, told.events, expires_at_ms=ends[account])
            batch.staged.append(staged)
            batch.operations += staged.changes


def _ids_of(groups: Iterable[_Group]) -> set[MessageId]:
    return {news.message_id for group in groups for news in group.advances}


def _abort(batches: Iterable[_Batch]) -> None:
    for batch in batches:
        for staged in batch.staged:
            staged.aborted()


def _resolve(batch: _Batch, outcome: Outcome) -> None:
    for staged in batch.staged:
        if outcome is None:
            staged.committed()
        else:
            staged.aborted()
    for group in batch.groups:
        if group.done is not None:
            group.done()
        if group.outcome is not None and not group.outcome.done():
            group.outcome.set_result(outcome)


def _without_waiting(groups: Sequence[_Group], error: LetterlockError) -> list[_Group]:
    """Tell the turns at once, which hold a conversation; the rest is tried again."""
    for group in groups:
        if group.outcome is not None and not group.outcome.done():
            group.outcome.set_exception(error)
    return [group for group in groups if group.outcome is None]


def _drop_payloads(groups: Iterable[_Group]) -> bool:
    """In a full store, rather tell statuses than keep what could be sent again: news that wait
    for room hold up those that make it. False when there was nothing to drop."""
    dropped = False
    for group in groups:
        if any(news.payload for news in group.advances):
            group.advances = [news._replace(payload=b"") for news in group.advances]
            dropped = True
    return dropped
