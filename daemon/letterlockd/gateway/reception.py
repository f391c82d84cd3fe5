"""Where the streams of one business number meet: carries out, on inbox and store, what
`letterlockd.streams.leases` decides.

    streams ──attach, take, settle, nack──▶ Reception ──read──▶ inbox
       ▲                                        │ commit: acknowledgements, dead letters
       └────────── woken: something changed ────┘ timer: leases and delays that end

Streams read, give and commit in their own tasks, so that a fault ends the stream that met it; only
the timer is in nobody's. Knows neither gRPC nor content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from letterlockd.clock import Clock
from letterlockd.gateway.dead_letters import DeadLetters
from letterlockd.gateway.inbox import Inbox
from letterlockd.gateway.inbox_rows import RECEIVE_POLICIES
from letterlockd.gateway.replay import Replay
from letterlockd.limits import DEFAULT_ATTEMPTS, MAX_FRAME_BYTES, READ_ROWS, TICK_MS
from letterlockd.limits import MAX_FRAME_RESULTS as FRAME_EVENTS
from letterlockd.model.counting import counted
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.inbox_pb2 import ReceivePolicyRecord
from letterlockd.store.port import Put, Store, StoreFull
from letterlockd.streams.held import Consumer, Item
from letterlockd.streams.leases import Leases

__all__ = ["Policy", "ReceiveCounters", "Reception", "Receptions"]


@dataclass(frozen=True, slots=True)
class Policy:
    """How the events of a number are treated; `keep_ms` 0: an acknowledged event is deleted."""

    max_attempts: int = DEFAULT_ATTEMPTS
    keep_ms: int = 0


@dataclass(slots=True)
class ReceiveCounters:
    """Read by telemetry; written on the loop only."""

    given: int = counted("Events that were given to businesses, repeats included.")
    redelivered: int = counted("Events that were given again.")
    acknowledged: int = counted("Events that businesses acknowledged.")
    dead_letters: int = counted("Events that became dead letters.")
    replayed: int = counted("Events and dead letters that were put back to be given again.")
    unkept: int = counted("Acknowledged events not kept for replay, as there was no space.")


class Reception:
    """One number's. Made by `Receptions`; lives as long as the process, since its leases remember
    what was given."""

    def __init__(
        self,
        account: AccountId,
        policy: Policy,
        inbox: Inbox,
        dead_letters: DeadLetters,
        clock: Clock,
        counters: ReceiveCounters,
    ) -> None:
        self.account = account
        self.leases = Leases(policy.max_attempts)
        self._keep_ms = policy.keep_ms
        self._inbox = inbox
        self._dead_letters = dead_letters
        self._clock = clock
        self._counters = counters
        self._wakes: dict[Consumer, Callable[[], None]] = {}
        self._reading = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_ms = 0

    @property
    def policy(self) -> Policy:
        """What is in force."""
        return Policy(self.leases.max_attempts, self._keep_ms)

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.leases.max_attempts = policy.max_attempts
        self._keep_ms = policy.keep_ms

    def attach(self, consumer: Consumer, wake: Callable[[], None]) -> Callable[[], None]:
        """A stream begins; `wake` is called when there may be something for it. Returns what ends
        the waking; to be called once, before `detach`."""
        self.leases.attach(consumer)
        self._wakes[consumer] = wake
        return self._inbox.listen(self.account, wake)

    def detach(self, consumer: Consumer, settled: Sequence[Item], *, lost: bool) -> None:
        """A stream ends; what it settled and did not commit comes again, too."""
        del self._wakes[consumer]
        self.leases.unsettled(settled)
        self.leases.detach(consumer, self._now_ms(), lost=lost)
        if not self._wakes and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.wake()

    def wake(self) -> None:
        """Something has changed that may concern any stream."""
        for wake in tuple(self._wakes.values()):
            wake()

    def take(self, consumer: Consumer) -> list[Item]:
        """What fits a frame and the stream's window, leased to it."""
        now_ms = self._now_ms()
        if (due_ms := self.leases.next_tick_ms) is not None and due_ms <= now_ms:
            self._tick()
        taken = self.leases.take(consumer, now_ms, limit=FRAME_EVENTS, max_bytes=MAX_FRAME_BYTES)
        if taken:
            self._counters.given += len(taken)
            self._counters.redelivered += sum(item.given for item in taken)
            self._schedule()
        return taken

    async def fill(self, consumer: Consumer) -> bool:
        """Read what comes next, if there is room for it; whether there was anything."""
        async with self._reading:
            leases = self.leases
            if not (leases.wants and consumer.has_room):
                return False
            if leases.cursor >= self._inbox.horizon(self.account):
                return False
            start = leases.begin_reading()
            try:
                page = await self._inbox.read(self.account, start, limit=READ_ROWS)
            except BaseException:
                leases.gave_up_reading()
                raise
            leases.read(start, page.items, page.reached)
        if len(self._wakes) > 1:
            self.wake()
        return True

    async def content(self, items: Sequence[Item]) -> None:
        """Read the content of those that have been given, or have waited, before."""
        without = [item for item in items if item.content is None]
        if without:
            await self._inbox.fetch(self.account, without)

    def nack(self, consumer: Consumer, event_ids: Sequence[str], delay_ms: int) -> None:
        """The stream gives events back."""
        self.leases.nack(consumer, event_ids, self._now_ms(), delay_ms)
        self._schedule()
        self.wake()

    def extend(self, consumer: Consumer, event_ids: Sequence[str], lease_ms: int) -> None:
        """The stream still works on events."""
        self.leases.extend(consumer, event_ids, self._now_ms(), lease_ms)
        self._schedule()

    async def commit(self, settled: Sequence[Item]) -> None:
        """Make durable what streams are done with, and what is given up. Raises what the store
        raises; the events come again then."""
        try:
            if settled:
                await self._acknowledge(settled)
        except BaseException:
            self.leases.unsettled(settled)
            raise
        self.leases.settled(settled)
        self._counters.acknowledged += len(settled)
        await self._bury()
        self.wake()

    def put_back(self, sequence: int, count: int) -> None:
        """Events lie in the inbox again from this row on."""
        self._counters.replayed += count
        self.leases.go_back(sequence)
        self.wake()

    async def _acknowledge(self, settled: Sequence[Item]) -> None:
        places = [item.place for item in settled]
        if not await self._inbox.acknowledge(self.account, places, keep_ms=self._keep_ms):
            self._counters.unkept += len(places)

    async def _bury(self) -> None:
        dying = self.leases.take_dying()
        if not dying:
            return
        try:
            await self._dead_letters.bury(self.account, dying)
        except StoreFull:
            self.leases.unsettled(dying)  # they keep; the next commit tries again
            return
        except BaseException:
            self.leases.unsettled(dying)
            raise
        self.leases.settled(dying)
        self._counters.dead_letters += len(dying)

    def _now_ms(self) -> int:
        return int(self._clock.monotonic() * 1_000)

    def _schedule(self) -> None:
        due_ms = self.leases.next_tick_ms
        if due_ms is None or (self._timer is not None and self._timer_at_ms <= due_ms):
            return
        if self._timer is not None:
            self._timer.cancel()
        wait_ms = max(due_ms - self._now_ms(), TICK_MS)
        self._timer_at_ms = due_ms
        self._timer = asyncio.get_running_loop().call_later(wait_ms / 1_000, self._tick)

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        changed = self.leases.tick(self._now_ms())
        self._schedule()
        if changed:
            self.wake()


class Receptions:
    """Those of all numbers, made as they are needed; bounded by the numbers that exist."""

    def __init__(self, store: Store, inbox: Inbox, clock: Clock) -> None:
        self.inbox = inbox
        self.dead_letters = DeadLetters(store, inbox, clock)
        self.counters = ReceiveCounters()
        self._replay = Replay(store, clock)
        self._store = store
        self._clock = clock
        self._of: dict[AccountId, Reception] = {}

    async def of(self, account: AccountId) -> Reception:
        """The number's."""
        if account not in self._of:
            row = await self._store.get(RECEIVE_POLICIES, account)
            policy = Policy() if row is None else _policy(ReceivePolicyRecord.FromString(row.value))
            if account not in self._of:  # another stream may have been faster
                parts = (self.inbox, self.dead_letters, self._clock, self.counters)
                self._of[account] = Reception(account, policy, *parts)
        return self._of[account]

    async def set_policy(self, account: AccountId, policy: Policy) -> None:
        """Durably, and in force for what comes."""
        reception = await self.of(account)
        record = ReceivePolicyRecord(
            max_attempts=policy.max_attempts, keep_acknowledged_ms=policy.keep_ms
        )
        put = Put(RECEIVE_POLICIES, account, record.SerializeToString())
        await self._store.commit([[put]])
        reception.policy = policy

    async def replay_dead_letters(self, account: AccountId, event_ids: Sequence[str]) -> int:
        """As `DeadLetters.replay`."""
        count = await self.dead_letters.replay(account, event_ids)
        self.counters.replayed += count
        return count

    async def replay_events(self, account: AccountId, start: int, from_ms: int) -> tuple[int, int]:
        """Put acknowledged events of the rows from `start` on, recorded at or after `from_ms`, back
        into the inbox; a bounded part of them. Returns how many, and where to go on (0: done)."""
        reception = await self.of(account)
        part = await self._replay.put_back(account, start, from_ms)
        if part.events:
            reception.put_back(part.first, part.events)
        return part.events, part.next


def _policy(record: ReceivePolicyRecord) -> Policy:
    return Policy(record.max_attempts, record.keep_acknowledged_ms)
