"""The conversations of one business number that have events in memory: whose each is, and which can
go on now.

    waiting, nothing out ──▶ free: any stream's
    waiting, a stream has something out ──▶ that stream's
    waiting, the first one is delayed ──▶ nobody's until it is due
    read over, since too much waits ──▶ left in the store, from a row on

Which events are leased, and for how long, is `letterlockd.streams.leases`. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from letterlockd.limits import MAX_SET_ASIDE, MAX_WAITING_IN_CONVERSATION
from letterlockd.streams.held import Consumer, Conversation, Item, ReadySet

__all__ = ["NEVER", "Conversations"]

NEVER = 1 << 62
"""A time, and a row, that does not come."""


class Conversations:
    """Opened by their first event in memory, closed with the last. `go_back` is told from which row
    on events were left whose conversation can go on."""

    def __init__(self, go_back: Callable[[int], None]) -> None:
        self.waiting = 0
        """How many events wait in memory."""
        self.next_due_ms = NEVER
        """When a delay ends, at the earliest."""
        self._go_back = go_back
        self._open: dict[bytes, Conversation] = {}
        self._free: ReadySet = {}
        self._delayed: ReadySet = {}

    def __iter__(self) -> Iterator[Conversation]:
        return iter(tuple(self._open.values()))

    def __len__(self) -> int:
        return len(self._open)

    def of(self, item: Item) -> Conversation:
        """The conversation of an event; opened if need be."""
        found = self._open.get(item.conversation)
        if found is None:
            found = self._open[item.conversation] = Conversation(item.conversation)
        return found

    def ready_for(self, consumer: Consumer) -> Conversation | None:
        """A conversation with something that a stream may have now: its own first."""
        for conversation in chain(consumer.ready, self._free):
            if conversation.waiting[0].place.sequence >= consumer.start:
                return conversation
        return None

    def next(self, conversation: Conversation) -> Item:
        """Its first waiting event, which is to be leased, and the conversation then placed."""
        self.waiting -= 1
        return conversation.waiting.popleft()

    def wait(self, conversation: Conversation, item: Item) -> None:
        """An event waits, at its place in the order; its content is read again when it is given."""
        item.content = None
        conversation.wait(item)
        self.waiting += 1

    def stop_waiting(self, item: Item) -> bool:
        """From waiting to out, for no stream. False for what does not wait."""
        conversation = self._open.get(item.conversation)
        if conversation is None or not conversation.stop_waiting(item):
            return False
        self.waiting -= 1
        conversation.out[item.event_id] = item
        self.place(conversation)
        return True

    def set_aside(self, conversation: Conversation, item: Item) -> bool:
        """An event that was read and cannot go on waits behind the others. False: it is left in the
        store."""
        if conversation.left_from is not None:
            return False
        full = len(conversation.waiting) >= MAX_WAITING_IN_CONVERSATION
        if full or self.waiting >= MAX_SET_ASIDE:
            conversation.left_from = item.place.sequence
            return False
        self.wait(conversation, item)
        self.place(conversation)
        return True

    def leave_out(self, item: Item) -> Conversation:
        """An event is out no more; its room in the window comes back."""
        conversation = self._open[item.conversation]
        del conversation.out[item.event_id]
        if item.consumer is not None:
            item.consumer.used -= 1
            item.consumer.used_bytes -= item.size
            item.consumer = None
        return conversation

    def forget_below(self, conversation: Conversation, start: int) -> Iterator[Item]:
        """Take what waits in rows below `start` out of memory."""
        waiting = conversation.waiting
        while waiting and waiting[0].place.sequence < start:
            yield self.next(conversation)
        if start == NEVER:
            conversation.left_from = None
        self.place(conversation)

    def place(self, conversation: Conversation) -> None:
        """Where a conversation stands for giving, after anything about it has changed."""
        waiting = conversation.waiting
        if not waiting and conversation.left_from is not None:
            left_from, conversation.left_from = conversation.left_from, None
            self._go_back(left_from)
        due_ms = waiting[0].due_ms if waiting else 0
        if due_ms:
            self._delayed[conversation] = None
            self.next_due_ms = min(self.next_due_ms, due_ms)
        elif self._delayed:
            self._delayed.pop(conversation, None)
        at: ReadySet | None = None
        if waiting and not due_ms:
            at = self._free if conversation.owner is None else conversation.owner.ready
        if at is not conversation.at:
            if conversation.at is not None:
                del conversation.at[conversation]
            if at is not None:
                at[conversation] = None
            conversation.at = at
        if not waiting and not conversation.out:
            self._open.pop(conversation.key, None)

    def resume(self, now_ms: int) -> bool:
        """End the delays that are over; whether there were any."""
        due = [held for held in self._delayed if held.waiting[0].due_ms <= now_ms]
        for conversation in due:
            conversation.waiting[0].due_ms = 0
            self.place(conversation)
        left = (held.waiting[0].due_ms for held in self._delayed)
        self.next_due_ms = min(left, default=NEVER)
        return bool(due)
