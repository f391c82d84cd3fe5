"""What is noted of a message as it gets on: counts, times, spans. Decides nothing."""

from __future__ import annotations

from letterlock.v1 import messaging_pb2 as api

from letterlockd.clock import Clock
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.statuses import Status
from letterlockd.model.histogram import LONG_BUCKETS, Histogram
from letterlockd.model.ids import MessageId
from letterlockd.records.v1.gateway_pb2 import MessageRecord
from letterlockd.traces import MESSAGE, Traces

__all__ = ["Milestones"]

_DELIVERED = (api.MESSAGE_STATUS_DELIVERED, api.MESSAGE_STATUS_READ)

_MS_NS = 1_000_000


class Milestones:
    """Of all sent messages. `accept_times`: from arrival to durable acceptance; `delivery_times`:
    from there to the receipt of the user's device."""

    def __init__(self, clock: Clock, counters: Counters, traces: Traces | None) -> None:
        self._clock = clock
        self._counters = counters
        self._traces = traces
        self.accept_times = Histogram()
        self.delivery_times = Histogram(LONG_BUCKETS)

    def accepted(self, message_id: MessageId, record: MessageRecord, now_ms: int) -> None:
        """Its first record is durable."""
        accept_ms = record.accept_ms
        self.accept_times.observe((now_ms - accept_ms) / 1_000)
        if self._traces is not None:
            now_ns = self._clock.now_ns()
            self._traces.tell("accept", (message_id,), accept_ms * _MS_NS, now_ns)

    def changed(self, message_id: MessageId, record: MessageRecord, was: Status) -> None:
        """A change of its status is durable."""
        status = record.status
        reached_relay = api.MESSAGE_STATUS_SENT <= status <= api.MESSAGE_STATUS_READ
        self._counters.sent += was == api.MESSAGE_STATUS_ACCEPTED and reached_relay
        self._counters.failed += status == api.MESSAGE_STATUS_FAILED
        self._counters.expired += status == api.MESSAGE_STATUS_EXPIRED
        if status in _DELIVERED and was not in _DELIVERED:
            self._delivered(message_id, record)

    def _delivered(self, message_id: MessageId, record: MessageRecord) -> None:
        self.delivery_times.observe((record.update_ms - record.accept_ms) / 1_000)
        if self._traces is not None:
            now_ns = self._clock.now_ns()
            self._traces.tell(MESSAGE, (message_id,), record.accept_ms * _MS_NS, now_ns)
