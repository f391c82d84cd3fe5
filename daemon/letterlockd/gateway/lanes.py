"""A lane: works of the conversations that one worker keeps, in micro-batches.

    put ──▶ turns ──gather──▶ read rows ──▶ job ──▶ settle ──▶ commit ──▶ tell, end the turns
                      ▲                                           │
                      └──── two batches in flight: one computes while one is committed

The size of a batch adapts: it is what came while the batches before were under way. Each
conversation of a batch is a transaction of its own, so that a conflict fails it alone; all are
handed to the store in one call and share one disk synchronisation. Holding turns, nothing is
awaited but the pool and the store (rule 7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import ParamSpec, TypeVar

import structlog

from letterlockd import failpoints
from letterlockd.clock import Clock
from letterlockd.errors import BrokenInvariant, LetterlockError
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.draft import Draft, Work
from letterlockd.gateway.inbox import Inbox
from letterlockd.gateway.outbox import Outbox
from letterlockd.gateway.progress import Progress
from letterlockd.gateway.rounds import Pool, Question, ask
from letterlockd.gateway.tables import CONVERSATIONS, split_conversation
from letterlockd.gateway.turns import Turns
from letterlockd.model.ids import AccountId, ConversationId
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.store.port import (
    ABSENT,
    Check,
    CommitConflict,
    Delete,
    Outcome,
    Put,
    Record,
    Store,
    StoreFull,
)
from letterlockd.traces import Traces
from letterlockd.workers.outcome import WorkerLost

__all__ = ["Desk", "Lane", "Lanes"]

_log = structlog.get_logger(__name__)

_IN_FLIGHT = 2
"""One batch at the worker while the other is committed. A third would only split the batches."""

_MAX_JOB_BYTES = 12 * 1024 * 1024
"""A job gets no further conversation beyond this. The largest task (256 envelopes of 64 kB) comes
on top, and the pool takes 32 MiB."""

_PAUSE_SECONDS = 1.0
"""How long a conversation rests whose turn did not happen and whose work must be kept."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What turns are worked with. `generation`: the store's, see `store.history`;
    `stale_session_ms`: see `GatewaySettings`."""

    store: Store
    pool: Pool
    inbox: Inbox
    outbox: Outbox
    progress: Progress
    clock: Clock
    counters: Counters
    generation: int
    stale_session_ms: int
    traces: Traces | None = None


@dataclass(slots=True)
class _Turn:
    """One conversation's part of a batch. `parts`: each work and its number of steps."""

    conversation: ConversationId
    works: list[Work]
    parts: list[tuple[Work, int]]
    question: Question
    draft: Draft

    @property
    def worked(self) -> list[Work]:
        """Those that have a part in it."""
        return [work for work, steps in self.parts if steps]


class Lanes:
    """All lanes; the pool's hash says which conversation belongs where."""

    def __init__(self, desk: Desk, *, batch: int) -> None:
        self._pool = desk.pool
        self._lanes = [Lane(index, desk, batch) for index in range(desk.pool.size)]

    def put(self, work: Work) -> None:
        """Queue work; the number of works is bounded by those who put."""
        self._lanes[self._pool.lane_of(work.conversation)].put(work)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run())

    async def idle(self) -> None:
        """Wait until no lane has work."""
        for lane in self._lanes:
            await lane.idle()


class Lane:
    """Lane number `index`."""

    def __init__(self, index: int, desk: Desk, batch: int) -> None:
        self._index = index
        self._desk = desk
        self._batch = batch
        self._turns: Turns[Work] = Turns()
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._conflicted: set[ConversationId] = set()

    def put(self, work: Work) -> None:
        """Queue work."""
        self._turns.put(work)
        self._idle.clear()
        self._news.set()

    async def idle(self) -> None:
        """Wait until there is no work, waiting or under way."""
        await self._idle.wait()

    async def run(self) -> None:
        """Work batches until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._news.wait()
                await self._slots.acquire()
                taken = self._turns.take(self._batch)
                if not self._turns:
                    self._news.clear()
                if taken:
                    group.create_task(self._work(taken))
                else:
                    self._slots.release()

    async def _work(self, taken: list[tuple[ConversationId, list[Work]]]) -> None:
        parked: set[ConversationId] = set()
        try:
            await self._run_batch(taken, parked)
        finally:
            self._slots.release()
        for conversation, _ in taken:
            if conversation not in parked:
                self._release(conversation)

    async def _run_batch(
        self, taken: list[tuple[ConversationId, list[Work]]], parked: set[ConversationId]
    ) -> None:
        desk = self._desk
        rows = await desk.store.get_many(CONVERSATIONS, [conversation for conversation, _ in taken])
        job = jobs.Job()
        now_ms = desk.clock.now_ms()
        turns: list[_Turn] = []
        size = 0
        for (conversation, works), row in zip(taken, rows, strict=True):
            if size > _MAX_JOB_BYTES:
                self._turns.put_back(conversation, works)
            elif (turn := _begin(job, conversation, works, row, now_ms)) is not None:
                turn.question.task.generation = desk.generation
                turn.question.task.unanswered_limit_ms = now_ms - desk.stale_session_ms
                size += turn.question.task.ByteSize()
                turns.append(turn)
        if not turns:
            return
        times = [] if desk.traces is None else [desk.traces.now_ns()]
        try:
            await ask(desk.pool, desk.store, self._index, job, [turn.question for turn in turns])
        except WorkerLost as error:
            for turn in turns:
                self._fail(turn, error, parked)
            return
        if desk.traces is not None:
            times.append(desk.traces.now_ns())
        commits = [_settled(turn, desk.inbox) for turn in turns]
        try:
            outcomes = await self._commit(turns, commits)
        except BaseException:
            for turn in turns:
                turn.draft.aborted(desk.outbox)
            raise
        done_ms = desk.clock.now_ms()
        if desk.traces is not None:
            _trace(desk.traces, turns, outcomes, *times)
        for turn, outcome in zip(turns, outcomes, strict=True):
            if outcome is None:
                self._conflicted.discard(turn.conversation)
                turn.draft.committed(desk.outbox, desk.progress, done_ms)
                for work in turn.worked:
                    work.committed()
                continue
            turn.draft.aborted(desk.outbox)
            if isinstance(outcome, StoreFull):
                self._fail(turn, outcome, parked)
            else:
                await self._conflict(turn, outcome, parked)

    async def _commit(
        self, turns: Sequence[_Turn], commits: Sequence[list[Put | Delete | Check]]
    ) -> list[Outcome | StoreFull]:
        """One outcome for each turn. A turn with a read receipt goes through `Progress`, the one
        writer of statuses. All are waited for: a turn that was given up while its commit is still
        on its way would begin again beside itself, and nobody would hear of what it wrote."""
        desk = self._desk
        flows = sorted({work.flow for turn in turns for work in turn.works})
        for flow in flows:
            failpoints.hit(f"gateway.{flow}.before_commit")
        plain = [
            commit
            for turn, commit in zip(turns, commits, strict=True)
            if commit and not turn.draft.advances
        ]
        with_news = [
            _or_full(desk.progress.record_with, turn.draft.advances, commit)
            for turn, commit in zip(turns, commits, strict=True)
            if turn.draft.advances
        ]
        of_plain, of_news = await asyncio.gather(
            _or_full(desk.store.commit, plain), asyncio.gather(*with_news)
        )
        for flow in flows:
            failpoints.hit(f"gateway.{flow}.after_commit")
        plain_outcomes = repeat(of_plain) if isinstance(of_plain, StoreFull) else iter(of_plain)
        news_outcomes = iter(of_news)
        return [
            next(news_outcomes) if turn.draft.advances else next(plain_outcomes) if commit else None
            for turn, commit in zip(turns, commits, strict=True)
        ]

    async def _conflict(
        self, turn: _Turn, conflict: CommitConflict, parked: set[ConversationId]
    ) -> None:
        """Begin the turn again. A work's own check says what was wrong with that work; the
        conversation's says that its row changed under us, which the turns rule out."""
        self._desk.counters.conflicts += 1
        works = turn.worked
        for work in works:
            work.taken_back()
        owner = next((work for work in works if work.owns(conflict)), None)
        if owner is not None:
            await owner.conflicted(conflict)
        else:
            _log.error("commit_conflict", table=conflict.table.name)
            if turn.conversation in self._conflicted:
                self._conflicted.discard(turn.conversation)
                self._fail(turn, BrokenInvariant("commit conflict"), parked)
                return
            self._conflicted.add(turn.conversation)
        self._turns.put_back(turn.conversation, works)

    def _fail(self, turn: _Turn, error: LetterlockError, parked: set[ConversationId]) -> None:
        kept = [work for work in turn.worked if work.failed(error)]
        if kept:
            self._turns.put_back(turn.conversation, kept)
            parked.add(turn.conversation)
            loop = asyncio.get_running_loop()
            loop.call_later(_PAUSE_SECONDS, self._release, turn.conversation)

    def _release(self, conversation: ConversationId) -> None:
        self._turns.release(conversation)
        if self._turns:
            self._news.set()
        elif self._turns.idle:
            self._idle.set()


_E = TypeVar("_E")
_P = ParamSpec("_P")


async def _or_full(
    commit: Callable[_P, Awaitable[_E]], *arguments: _P.args, **named: _P.kwargs
) -> _E | StoreFull:
    """What a commit comes to. It begins in here: a lane may be ended before this does."""
    try:
        return await commit(*arguments, **named)
    except StoreFull as full:
        return full


def _trace(
    traces: Traces,
    turns: Sequence[_Turn],
    outcomes: Sequence[Outcome | StoreFull],
    asked_ns: int,
    answered_ns: int,
) -> None:
    done_ns = traces.now_ns()
    for turn, outcome in zip(turns, outcomes, strict=True):
        if outcome is None:
            traces.tell("encrypt", turn.draft.accepted, asked_ns, answered_ns)
            traces.tell("commit", turn.draft.accepted, answered_ns, done_ns)


def _begin(
    job: jobs.Job,
    conversation: ConversationId,
    works: list[Work],
    row: Record | None,
    now_ms: int,
) -> _Turn | None:
    """The conversation's task in `job`, or None when no work is left that needs one."""
    user: AccountId | None = works[0].user
    version, sealed_record = ABSENT, b""
    if row is not None:
        user, sealed_record = split_conversation(row.value)
        version = row.version
    task = job.tasks.add()
    parts = []
    known = row is not None
    for work in works:
        steps = work.plan(task, known)
        known = known or steps > 0
        user = user or work.user
        parts.append((work, steps))
    if not task.steps or user is None:
        del job.tasks[-1]
        return None
    number = works[0].number
    task.conversation = conversation
    task.sealed_record = sealed_record
    task.scope_key = number.scope_key
    task.sealed_identity = number.sealed_identity
    task.key_owner_id = number.key_scope
    task.day_key = works[0].day_key
    task.user_account_id = user
    task.business_account_id = number.account
    task.now_ms = now_ms
    task.hold_identity_changes = number.hold_identity_changes
    draft = Draft(number, conversation, user, version, now_ms)
    return _Turn(conversation, works, parts, Question(task, number.key_scope), draft)


def _settled(turn: _Turn, inbox: Inbox) -> list[Put | Delete | Check]:
    results = iter(turn.question.results)
    for work, steps in turn.parts:
        if steps:
            work.settle([next(results) for _ in range(steps)], turn.draft)
    return turn.draft.finish(inbox, turn.question.sealed_record)
