"""Which events of a Receive stream are in the caller's hands, and what to write of them: pure.

    offer ──▶ in hand ──ack, nack──▶ to write ──take──▶ written
                 │                       ▲
                 │  offered again after its ack (the stream was lost before the ack was certain)
                 └──renew──▶ leases to begin anew, as long as an event is not held for too long

An event is handed out once, although the gateway gives it again after a lost stream or lease. With
a nacked event the gateway takes back what it gave behind it of the same user: what of that is still
on its way is passed over until the nack is answered, and comes again, behind the nacked one. Knows
no stream, no clock, no task; reads no content. Times are seconds of one clock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from letterlock.durations import set_seconds
from letterlock.v1 import messaging_pb2

MAX_IDS = 10_000
"""The contract's limit of one frame."""


class AckWindow:
    """The events of one receiver, by event id."""

    def __init__(self, window: int, hold: float) -> None:
        """`window`: how many events may be unacknowledged at a time; `hold`: for how many seconds
        the lease of one in hand is renewed."""
        # Acks that were lost with a stream concern at most a window of events; twice that, so
        # that those of the stream before are still known. Forgetting one costs a second delivery.
        self._remembered = 2 * window
        self._hold = hold
        self._in_hand: dict[str, float] = {}
        self._extended: dict[str, float] = {}
        self._acked: OrderedDict[str, None] = OrderedDict()
        self._acks: list[str] = []
        self._others: list[messaging_pb2.ReceiveRequest] = []
        self._nacked: dict[str, str] = {}  # not answered yet, and whose; never more than a window
        self._taken_back: Counter[str] = Counter()  # users in there

    @property
    def has_work(self) -> bool:
        """Whether take() would give something."""
        return bool(self._acks or self._others)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in hand and nothing is to be written."""
        return not self._in_hand and not self.has_work

    def offer(self, event_id: str, user_id: str, now: float) -> bool:
        """Note an event from the stream; True when it is to be handed out."""
        if event_id in self._acked:
            self._acks.append(event_id)
            return False
        if event_id in self._in_hand or user_id in self._taken_back:
            return False
        self._in_hand[event_id] = now
        return True

    def ack(self, event_id: str) -> None:
        """The caller is done with an event. Acknowledging twice is harmless."""
        if not self.let_go(event_id):
            return
        self._acks.append(event_id)
        self._acked[event_id] = None
        if len(self._acked) > self._remembered:
            self._acked.popitem(last=False)

    def nack(self, event_id: str, user_id: str, delay: float) -> bool:
        """The caller wants it again after `delay` seconds. False when it is not in hand."""
        if not self.let_go(event_id):
            return False
        nacks = messaging_pb2.ReceiveNacks(event_ids=[event_id])
        set_seconds(nacks.delay, delay, field="delay")
        self._others.append(messaging_pb2.ReceiveRequest(nacks=nacks))
        self._nacked[event_id] = user_id
        self._taken_back[user_id] += 1
        return True

    def answered(self, event_ids: Iterable[str]) -> None:
        """The gateway has carried out these nacks: what comes from here on is given anew."""
        for event_id in event_ids:
            user_id = self._nacked.pop(event_id, None)
            if user_id is None:
                continue
            self._taken_back[user_id] -= 1
            if not self._taken_back[user_id]:
                del self._taken_back[user_id]

    def extend(self, event_id: str, seconds: float, now: float) -> None:
        """The caller needs `seconds` more from now; nothing for an event that is not in hand."""
        if event_id in self._in_hand:
            self._extended[event_id] = now + seconds
            extensions = messaging_pb2.ReceiveExtensions(event_ids=[event_id])
            set_seconds(extensions.lease, seconds, field="seconds")
            self._others.append(messaging_pb2.ReceiveRequest(extensions=extensions))

    def let_go(self, event_id: str) -> bool:
        """No longer in hand: it is handed out when it comes again. False when it was not."""
        self._extended.pop(event_id, None)
        return self._in_hand.pop(event_id, None) is not None

    def renew(self, now: float, lease: float) -> None:
        """Begin anew the leases of what is in hand, unless it is held for too long, or was extended
        for longer."""
        ids = [
            event_id
            for event_id, since in self._in_hand.items()
            if now - since < self._hold and self._extended.get(event_id, 0.0) <= now + lease
        ]
        for start in range(0, len(ids), MAX_IDS):
            part = messaging_pb2.ReceiveExtensions(event_ids=ids[start : start + MAX_IDS])
            self._others.append(messaging_pb2.ReceiveRequest(extensions=part))

    def lost(self) -> None:
        """The stream is gone, and with it the leases: what was to be said of them is void. Acks
        stay good."""
        self._others.clear()
        self._nacked.clear()
        self._taken_back.clear()

    def take(self) -> messaging_pb2.ReceiveRequest | None:
        """The next frame; None when there is nothing to say."""
        if self._acks:
            ids, self._acks = self._acks[:MAX_IDS], self._acks[MAX_IDS:]
            return messaging_pb2.ReceiveRequest(acks=messaging_pb2.ReceiveAcks(event_ids=ids))
        if self._others:
            frame, *self._others = self._others
            return frame
        return None
