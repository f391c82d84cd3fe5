"""Which events of a Receive stream are in the caller's hands, and which acks to write: pure.

    offer ──▶ in hand ──ack──▶ to write ──take──▶ written
                                  ▲
      offered again after its ack ┘   (the stream was lost before the ack was certain)

An event is handed out once, although the gateway gives it again after a lost stream. Knows no
stream, no clock, no task; reads no content.
"""

from __future__ import annotations

from collections import OrderedDict

MAX_ACKS = 10_000
"""The contract's limit of one ack frame."""


class AckWindow:
    """The events of one receiver, by event id."""

    def __init__(self, window: int) -> None:
        """`window`: how many events may be unacknowledged at a time."""
        # Acks that were lost with a stream concern at most a window of events; twice that, so
        # that those of the stream before are still known. Forgetting one costs a second delivery.
        self._remembered = 2 * window
        self._in_hand: set[str] = set()
        self._acked: OrderedDict[str, None] = OrderedDict()
        self._to_write: list[str] = []

    @property
    def has_work(self) -> bool:
        """Whether take() would give something."""
        return bool(self._to_write)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand and nothing is to be written."""
        return not self._in_hand and not self._to_write

    def offer(self, event_id: str) -> bool:
        """Note an event from the stream; True when it is to be handed out."""
        if event_id in self._acked:
            self._to_write.append(event_id)
            return False
        if event_id in self._in_hand:
            return False
        self._in_hand.add(event_id)
        return True

    def ack(self, event_id: str) -> None:
        """The caller is done with an event. Acknowledging twice is harmless."""
        if event_id not in self._in_hand:
            return
        self._in_hand.remove(event_id)
        self._to_write.append(event_id)
        self._acked[event_id] = None
        if len(self._acked) > self._remembered:
            self._acked.popitem(last=False)

    def take(self) -> list[str]:
        """The ids of the next ack frame; empty when there is nothing to say."""
        batch, self._to_write = self._to_write[:MAX_ACKS], self._to_write[MAX_ACKS:]
        return batch
