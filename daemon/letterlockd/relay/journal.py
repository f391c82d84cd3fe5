"""The one way into mailboxes: what is ready becomes one durable batch, then all of it is told.

    stage, settle ──▶ next batch ──commit──▶ answers, live deliveries, room for more
          ▲                │ (one at a time; what comes meanwhile is the batch after it)
          └── a check failed: recipient changed → judged again; repeat → answered as before

I1: nothing of a batch is answered, delivered or counted before its commit has returned. Batches
are committed one after the other, so item ids and commits have one order (see `item_ids`). A full
disk refuses submissions, and what is staged behind them, and keeps acknowledgements that owe a
receipt until there is space.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from letterlock.relay.v1.mailbox_pb2 import Submission

from letterlockd import failpoints
from letterlockd.clock import Clock
from letterlockd.legs import Reading
from letterlockd.relay.connection import Connection, Outgoing
from letterlockd.relay.counters import Counters
from letterlockd.relay.item_ids import ItemIds
from letterlockd.relay.levels import Levels
from letterlockd.relay.receipts import Acknowledged, Batch, Receipts, Settling
from letterlockd.relay.refusals import storage_full
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.submissions import Sender, answer
from letterlockd.relay.switchboard import Switchboard
from letterlockd.relay.tables import SUBMITTED
from letterlockd.relay.usage import Counted, Usage
from letterlockd.store.port import Commit, Outcome, Store, StoreFull
from letterlockd.traces import Traces

__all__ = ["Journal", "Staged"]

_FULL_PAUSE_SECONDS = 1.0

_RIDE_SECONDS = 0.02
"""How long acknowledgements wait for a submission to ride with. Nobody waits for them as for
a message, and a commit of their own costs a message a tenth more."""

_QUIET_BATCH = 4
"""Submissions and acknowledgements. After a batch of so few the next one does not gather: below
some thousand messages a second that only made each of them wait."""


@dataclass(slots=True)
class Staged:
    """A submission on its way: its transaction (empty for ephemeral ones), and the items that go
    live with it. `acceptance` is the answer once it is durable."""

    connection: Connection
    submission: Submission
    acceptance: bytes
    sender: Sender
    commit: Commit
    items: Sequence[Outgoing]
    counted: Sequence[Counted]
    size: int


class Journal:
    """Gathers, commits, tells. `run` is its task; `judge_again` gets submissions whose recipient
    changed between judging and commit."""

    def __init__(
        self,
        store: Store,
        ids: ItemIds,
        levels: Levels,
        usage: Usage,
        switchboard: Switchboard,
        clock: Clock,
        settings: RelaySettings,
        traces: Traces | None = None,
    ) -> None:
        self._traces = traces
        self.counters = Counters()
        self.judge_again: Callable[[Sequence[Staged]], Coroutine[Any, Any, None]]
        self._store = store
        self._ids = ids
        self._levels = levels
        self._usage = usage
        self._switchboard = switchboard
        self._clock = clock
        self._settings = settings
        self._receipts = Receipts(store, settings.max_ttl_ms, self._is_leaving)
        self._staged: list[Staged] = []
        self._staged_size = 0
        self._settlings: list[Settling] = []
        self._settling_rows = 0
        self._leaving: dict[int, set[int]] = {}
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._taken = asyncio.Event()
        self._busy = False
        self._batches = 0

    @property
    def reading(self) -> Reading:
        """What is to be committed and told, and the batches that were. A full disk is none."""
        return Reading(self._waiting() + self._busy, self._batches)

    async def room(self) -> None:
        """Wait until one more frame may be staged; there is room until the next await."""
        while (
            len(self._staged) >= self._settings.max_staged
            or self._settling_rows >= self._settings.max_staged
            or self._staged_size >= self._settings.max_staged_bytes
        ):
            self._taken.clear()
            await self._taken.wait()

    def stage(self, staged: Staged) -> None:
        """Commit a submission with the next batch."""
        self._staged.append(staged)
        self._staged_size += staged.size
        for item in staged.items:
            self._levels.added(item.mailbox, item.size, 1 if item.size else 0)
        self._hurry.set()
        self._wake.set()

    def settle(self, settling: Settling) -> None:
        """Delete rows of mailboxes with the next batch, and give the receipts they owe."""
        self._settlings.append(settling)
        self._settling_rows += settling.row_count
        if isinstance(settling, Acknowledged):
            leaving = self._leaving.setdefault(settling.mailbox, set())
            leaving.update([item_id for item_id, _ in settling.items])
        if self._heavy():
            self._hurry.set()
        self._wake.set()

    def leaving(self, mailbox: int) -> frozenset[int]:
        """Items of a mailbox that are acknowledged, but not durably so."""
        return frozenset(self._leaving.get(mailbox, ()))

    async def idle(self) -> None:
        """Wait until everything that was staged is durable and told."""
        while self._staged or self._settlings or self._busy:
            self._hurry.set()
            self._taken.clear()
            await self._taken.wait()

    async def run(self) -> None:
        """Commit batches until cancelled. Raises `StoreUnavailable` when the store is lost."""
        started, busy = -math.inf, False
        while True:
            await self._wake.wait()
            await self._ride()
            pause = started + self._settings.batch_seconds - self._clock.monotonic()
            if busy and pause > 0 and not self._heavy():
                await asyncio.sleep(pause)
            started, busy = self._clock.monotonic(), self._waiting() > _QUIET_BATCH
            self._wake.clear()
            full = await self._batch()
            self._batches += not full
            if full or self._usage.owes_a_write:
                self._wake.set()
            if full:
                await asyncio.sleep(_FULL_PAUSE_SECONDS)

    async def _ride(self) -> None:
        """Let acknowledgements wait a moment for submissions; those wait for nothing."""
        if not self._hurry.is_set():  # under load it nearly always is
            with suppress(TimeoutError):
                async with asyncio.timeout(_RIDE_SECONDS):
                    await self._hurry.wait()
        self._hurry.clear()

    def _heavy(self) -> bool:
        return self._waiting() >= self._settings.max_staged // 2

    def _waiting(self) -> int:
        return len(self._staged) + self._settling_rows

    async def _batch(self) -> bool:
        """One batch. True when the disk is full and something is left for later."""
        while not self._ids.can_take(needed := self._receipts.ids_needed(self._settlings)):
            await self._ids.ensure(needed)
        # Drawn in the same step as the batch is taken: above its items, below all later ones.
        receipt_id = self._ids.take(needed)
        staged, self._staged, self._staged_size = self._staged, [], 0
        settlings, self._settlings, self._settling_rows = self._settlings, [], 0
        self._busy = True
        self._taken.set()
        try:
            return await self._commit(staged, settlings, receipt_id)
        finally:
            self._busy = False
            self._taken.set()

    async def _commit(
        self, staged: Sequence[Staged], settlings: Sequence[Settling], receipt_id: int
    ) -> bool:
        now_ms = self._clock.now_ms()
        began_ns = 0 if self._traces is None else self._traces.now_ns()
        usage = await self._usage.fold((one for each in staged for one in each.counted), now_ms)
        batch = await self._receipts.settle(settlings, receipt_id, now_ms)
        commits = [one.commit for one in staged]
        if staged:
            failpoints.hit("relay.submit.before_commit")
        if settlings:
            failpoints.hit("relay.ack.before_commit")
        try:
            # One call is one transaction: a reader sees the batch's items all or not at all.
            outcomes = await self._store.commit([*commits, usage, batch.changes])
        except StoreFull as full:
            self._refuse(staged, full, now_ms)
            return await self._settle_on_full_disk(settlings, receipt_id, now_ms)
        if staged:
            failpoints.hit("relay.submit.after_commit")
        if settlings:
            failpoints.hit("relay.ack.after_commit")
        if self._traces is not None:
            _trace(self._traces, staged, outcomes, began_ns)
        self._switchboard.offer(await self._tell(staged, outcomes, now_ms))
        self._done(settlings, batch)
        return False

    async def _tell(
        self, staged: Sequence[Staged], outcomes: Sequence[Outcome], now_ms: int
    ) -> list[Outgoing]:
        """Answer submissions; the items that are now in mailboxes."""
        items: list[Outgoing] = []
        again: list[Staged] = []
        for one, outcome in zip(staged, outcomes, strict=False):
            if outcome is None:
                items += one.items
                one.connection.answered(one.acceptance)
                continue
            self._undo(one, now_ms)
            if outcome.table is SUBMITTED:
                one.connection.answered(one.acceptance)  # a repeat: the first answer
            else:
                again.append(one)
        self.counters.submissions += outcomes[: len(staged)].count(None)
        if again:
            await self.judge_again(again)
        return items

    def _refuse(self, staged: Sequence[Staged], full: StoreFull, now_ms: int) -> None:
        refusal = storage_full(full.retry_after_ms or 0)
        for one in staged:
            self._undo(one, now_ms)
            if one.sender.is_business:
                one.connection.refused.add(one.submission, refusal)
            one.connection.answered(answer(one.submission, refusal).SerializeToString())
        self._refuse_behind()

    def _refuse_behind(self) -> None:
        """What was staged meanwhile, of the same pairs: with space it would overtake."""
        staged, self._staged = self._staged, []
        for one in staged:
            refusal = one.connection.refused.behind(one.submission)
            if refusal is None:
                self._staged.append(one)
                continue
            self._staged_size -= one.size
            self._unstage(one)
            one.connection.answered(answer(one.submission, refusal).SerializeToString())

    def _undo(self, one: Staged, now_ms: int) -> None:
        self._usage.take_back(one.counted, now_ms)
        self._unstage(one)

    def _unstage(self, one: Staged) -> None:
        for item in one.items:
            self._levels.added(item.mailbox, -item.size, -1 if item.size else 0)

    async def _settle_on_full_disk(
        self, settlings: Sequence[Settling], receipt_id: int, now_ms: int
    ) -> bool:
        """Deletions alone are let through, and make the space that the rest waits for."""
        free = [one for one in settlings if isinstance(one, Acknowledged) and not one.owes]
        batch = await self._receipts.settle(free, receipt_id, now_ms)
        try:
            await self._store.commit([batch.changes])
        except StoreFull:
            free = []
        else:
            self._done(free, batch)
        left = [one for one in settlings if one not in free]
        self._settlings[:0] = left
        self._settling_rows += sum(one.row_count for one in left)
        return bool(left)

    def _done(self, settlings: Sequence[Settling], batch: Batch) -> None:
        self._switchboard.offer(batch.items)
        for mailbox, size in batch.freed:
            self._levels.added(mailbox, -size, -1)
        for item in batch.items:
            self._levels.added(item.mailbox, item.size)
        for one in settlings:
            if isinstance(one, Acknowledged):
                self.counters.deliveries += one.row_count
                if self._traces is not None:
                    for _, debt in one.items:
                        if debt is not None:
                            self._traces.end("delivery", debt.message_id)
                self._left(one)
            one.done()

    def _is_leaving(self, mailbox: int, item_id: int) -> bool:
        return item_id in self._leaving.get(mailbox, ())

    def _left(self, one: Acknowledged) -> None:
        leaving = self._leaving[one.mailbox]
        leaving.difference_update([item_id for item_id, _ in one.items])
        if not leaving:
            del self._leaving[one.mailbox]


def _trace(
    traces: Traces, staged: Sequence[Staged], outcomes: Sequence[Outcome], began_ns: int
) -> None:
    taken = [
        one.submission.message_id
        for one, outcome in zip(staged, outcomes, strict=False)
        if outcome is None
    ]
    traces.tell("relay commit", taken, began_ns, traces.now_ns())
    for message_id in taken:
        traces.begin("delivery", message_id)
