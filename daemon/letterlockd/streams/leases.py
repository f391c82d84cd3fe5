"""Which stream works on which event of one business number.

    store ──read──▶ fresh ──take──▶ leased ──settle──▶ settling ──settled──▶ gone
                      │               │ nack, expiry,                ▲
                      │ not now       ▼ end of the stream            │
                      └──────────▶ waiting ──take──▶ leased          │
                                      └─ attempts used up ─▶ dying ──┘

Rules. A conversation is one stream's while anything of it is out, so that its order holds and it is
worked on in one place. When an event's lease ends without its acknowledgement, the leases of its
conversation's later events end with it, and all come again in order; only the event itself is
charged with the attempt. A lost stream charges the first event that it had of each conversation:
the one that was worked on. After `max_attempts` an event is dying: its conversation goes on, and
the caller makes it a dead letter. Room in a window comes back when a lease ends, or when the
acknowledgement is committed.

Bounded: at most a page of fresh events, what the windows allow to be out, and `MAX_WAITING` that
wait. Further events of conversations that cannot go on are left in the store, and the reading goes
back for them (`left_from`); what is known of a left event is kept for `MAX_REMEMBERED` of them.

Time is handed in, in milliseconds of a clock that never goes back. Pure; no I/O, no content.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from letterlockd.limits import MAX_REMEMBERED, MAX_WAITING
from letterlockd.streams.conversations import NEVER, Conversations
from letterlockd.streams.held import Consumer, Conversation, Failure, Item

__all__ = ["Leases"]


class Leases:
    """The events of one number and the streams that share them."""

    def __init__(self, max_attempts: int) -> None:
        self.max_attempts = max_attempts
        self.cursor = NEVER
        """Every row below is read, or left for a conversation that cannot go on."""
        self._floor = NEVER
        self._items: dict[str, Item] = {}
        self._conversations = Conversations(self.go_back)
        self._consumers: dict[Consumer, None] = {}
        self._fresh: deque[Item] = deque()
        self._dying: list[Item] = []
        self._past: dict[str, tuple[int, Failure | None, int]] = {}
        self._next_expiry_ms = NEVER
        self._settled_meanwhile: set[int] | None = None  # rows

    # ---- streams

    @property
    def has_consumers(self) -> bool:
        """Whether any stream is attached."""
        return bool(self._consumers)

    def attach(self, consumer: Consumer) -> None:
        """A stream begins to receive."""
        if consumer.start < self._floor:
            self._forget_below(NEVER)  # what waits lies behind what is read now
            self.cursor = self._floor = consumer.start
        self._consumers[consumer] = None

    def detach(self, consumer: Consumer, now_ms: int, *, lost: bool) -> None:
        """A stream ends; `lost`: not as either side meant it to. What it had comes again. What it
        settled must be `settled` or `unsettled` before."""
        del self._consumers[consumer]
        last_first = sorted(consumer.leased.values(), key=lambda one: one.place, reverse=True)
        for first in {item.conversation: item for item in last_first}.values():
            conversation = self._conversations.of(first)
            if lost and first.given:
                self._fail(first, Failure.STREAM_LOST, now_ms, now_ms)
            else:
                self._end_leases_from(conversation, first)
                self._conversations.place(conversation)
        for conversation in tuple(consumer.ready):
            conversation.owner = None
            self._conversations.place(conversation)
        start = min((other.start for other in self._consumers), default=NEVER)
        if start > self._floor:
            self._forget_below(start)

    def caught_up_to(self, consumer: Consumer) -> int:
        """Every event in a row below is given, held back, or another stream's."""
        if self._conversations.ready_for(consumer) is not None:
            return 0
        return self._fresh[0].place.sequence if self._fresh else self.cursor

    # ---- reading

    @property
    def wants(self) -> bool:
        """Whether the next page should be read."""
        return not self._fresh and self._conversations.waiting < MAX_WAITING

    def begin_reading(self) -> int:
        """The row to read from. Ends with `read`, or `gave_up_reading`."""
        self._settled_meanwhile = set()
        return self.cursor

    def read(self, start: int, items: Sequence[Item], reached: int) -> None:
        """What lies in the rows from `start` to below `reached`, in order. Events that are held
        already are passed over; a row of which something was settled meanwhile is read again, with
        all behind it."""
        settled, self._settled_meanwhile = self._settled_meanwhile, None
        if start != self.cursor:
            return  # it moved meanwhile
        for item in items:
            if settled and item.place.sequence in settled:
                reached = item.place.sequence
                break
            if item.event_id in self._items:
                continue
            if self._past and item.event_id in self._past:
                item.failures, item.last_failure, item.due_ms = self._past.pop(item.event_id)
                item.given = True
            self._items[item.event_id] = item
            self._fresh.append(item)
        self.cursor = reached

    def gave_up_reading(self) -> None:
        """Nothing was read."""
        self._settled_meanwhile = None

    def go_back(self, sequence: int) -> None:
        """Read again from this row on: something lies there that was left or was put back."""
        if self._fresh:
            sequence = min(sequence, self._fresh[0].place.sequence)
            for item in self._fresh:
                self._forget(item)
            self._fresh.clear()
        self.cursor = min(self.cursor, max(sequence, self._floor))

    # ---- giving

    def take(self, consumer: Consumer, now_ms: int, *, limit: int, max_bytes: int) -> list[Item]:
        """Lease to a stream what it may have now: at most `limit` events, and about `max_bytes`."""
        taken: list[Item] = []
        size = 0
        deadline_ms = now_ms + consumer.lease_ms
        while len(taken) < limit and size < max_bytes and consumer.has_room:
            item = self._lease_waiting(consumer) or self._lease_fresh(consumer, now_ms)
            if item is None:
                break
            item.deadline_ms = deadline_ms
            taken.append(item)
            size += item.size
        if taken and deadline_ms < self._next_expiry_ms:
            self._next_expiry_ms = deadline_ms
        return taken

    def gave(self, items: Iterable[Item]) -> None:
        """They leave for the stream: from here on they may be acknowledged and charged."""
        for item in items:
            item.given = True
            item.content = None

    def put_back(self, items: Iterable[Item]) -> None:
        """Leased, and not given after all."""
        for item in items:
            if item.consumer is not None and not item.settling:
                conversation = self._conversations.of(item)
                self._end_leases_from(conversation, item)
                self._conversations.place(conversation)

    # ---- ends of leases

    def settle(self, event_ids: Iterable[str]) -> list[Item]:
        """The events of these ids that were given and are held: done with. The caller commits
        that, and says `settled` or `unsettled`."""
        done: list[Item] = []
        items = self._items
        for event_id in event_ids:
            item = items.get(event_id)
            if item is None or item.settling or not item.given:
                continue
            if item.consumer is None:
                if not self._conversations.stop_waiting(item):
                    continue
            else:
                del item.consumer.leased[event_id]
            item.settling = True
            done.append(item)
        return done

    def drop(self, items: Iterable[Item]) -> list[Item]:
        """As `settle`, for leased events that turned out to be deleted already."""
        for item in items:
            item.given = True
        return self.settle(item.event_id for item in items)

    def settled(self, items: Iterable[Item]) -> None:
        """Committed: they are gone."""
        for item in items:
            del self._items[item.event_id]
            if self._settled_meanwhile is not None:
                self._settled_meanwhile.add(item.place.sequence)
            conversation = self._conversations.leave_out(item)
            if not conversation.out:
                conversation.owner = None
                self._conversations.place(conversation)

    def unsettled(self, items: Iterable[Item]) -> None:
        """Not committed, or who knows: they come again, uncharged."""
        for item in items:
            if item.dying:
                self._dying.append(item)
                continue
            item.settling = False
            conversation = self._conversations.leave_out(item)
            self._conversations.wait(conversation, item)
            conversation.release()
            self._conversations.place(conversation)

    def nack(
        self, consumer: Consumer, event_ids: Iterable[str], now_ms: int, delay_ms: int
    ) -> None:
        """The stream could not work on these, and wants them, or others to have them, again."""
        leased = consumer.leased
        nacked = {leased[event_id] for event_id in event_ids if event_id in leased}
        for item in sorted(nacked, key=lambda one: one.place):
            if item.consumer is not None:  # an earlier one of its conversation may have ended it
                self._fail(item, Failure.NACKED, now_ms, now_ms + delay_ms)

    def extend(
        self, consumer: Consumer, event_ids: Iterable[str], now_ms: int, lease_ms: int
    ) -> None:
        """The stream still works on these."""
        deadline_ms = now_ms + (lease_ms or consumer.lease_ms)
        for event_id in event_ids:
            if (item := consumer.leased.get(event_id)) is not None:
                item.deadline_ms = deadline_ms
                self._next_expiry_ms = min(self._next_expiry_ms, deadline_ms)

    @property
    def has_dying(self) -> bool:
        """Whether `take_dying` would give something."""
        return bool(self._dying)

    def take_dying(self) -> list[Item]:
        """Events whose attempts are used up: to be made dead letters, then `settled`."""
        dying, self._dying = self._dying, []
        return dying

    # ---- time

    @property
    def next_tick_ms(self) -> int | None:
        """When `tick` has something to do, at the earliest."""
        due_ms = min(self._next_expiry_ms, self._conversations.next_due_ms)
        return None if due_ms == NEVER else due_ms

    def tick(self, now_ms: int) -> bool:
        """End leases and delays that are over; whether there were any."""
        changed = False
        if now_ms >= self._next_expiry_ms:
            changed = self._expire(now_ms)
        if now_ms >= self._conversations.next_due_ms:
            changed = self._conversations.resume(now_ms) or changed
        return changed

    def _expire(self, now_ms: int) -> bool:
        leased = [item for consumer in self._consumers for item in consumer.leased.values()]
        over = [item for item in leased if item.deadline_ms <= now_ms]
        for item in over:
            if item.consumer is not None:  # as in `nack`
                self._fail(item, Failure.LEASE_EXPIRED, now_ms, now_ms)
        left = (item.deadline_ms for item in leased if item.consumer is not None)
        self._next_expiry_ms = min(left, default=NEVER)
        return bool(over)

    # ---- inside

    def _lease_waiting(self, consumer: Consumer) -> Item | None:
        conversation = self._conversations.ready_for(consumer)
        if conversation is None:
            return None
        item = self._conversations.next(conversation)
        conversation.lease(item, consumer)
        self._conversations.place(conversation)
        return item

    def _lease_fresh(self, consumer: Consumer, now_ms: int) -> Item | None:
        conversations = self._conversations
        while self._fresh:
            item = self._fresh.popleft()
            conversation = conversations.of(item)
            if not conversation.goes_on_with(consumer):
                if not conversations.set_aside(conversation, item):
                    self._forget(item)
            elif item.due_ms > now_ms or item.place.sequence < consumer.start:
                conversations.wait(conversation, item)
                conversations.place(conversation)
            else:
                conversation.lease(item, consumer)
                return item
        return None

    def _fail(self, item: Item, failure: Failure, now_ms: int, due_ms: int) -> None:
        conversation = self._conversations.of(item)
        self._end_leases_from(conversation, item)
        item.failures += 1
        item.last_failure = failure
        item.due_ms = due_ms if due_ms > now_ms else 0
        if item.failures >= self.max_attempts:
            self._conversations.stop_waiting(item)
            item.settling = item.dying = True
            self._dying.append(item)
        self._conversations.place(conversation)

    def _end_leases_from(self, conversation: Conversation, first: Item) -> None:
        """This event and those given after it wait again."""
        place = first.place
        ended = [one for one in conversation.out.values() if one.place >= place]
        for item in reversed(ended):
            if item.consumer is not None and not item.settling:
                del item.consumer.leased[item.event_id]
                self._conversations.leave_out(item)
                self._conversations.wait(conversation, item)
        conversation.release()

    def _forget_below(self, start: int) -> None:
        """No stream takes what lies below `start`: only what is known of it is kept. All of it
        goes, what is being read included, or a stream that starts earlier would get the rest
        before what was forgotten."""
        self._floor = start
        self.cursor = max(self.cursor, start)
        while self._fresh and self._fresh[0].place.sequence < start:
            self._forget(self._fresh.popleft())
        for conversation in self._conversations:
            for item in self._conversations.forget_below(conversation, start):
                self._forget(item)

    def _forget(self, item: Item) -> None:
        """Out of memory; what is known of its attempts stays."""
        del self._items[item.event_id]
        if not item.given:
            return
        self._past[item.event_id] = (item.failures, item.last_failure, item.due_ms)
        if len(self._past) > MAX_REMEMBERED:
            del self._past[next(iter(self._past))]
