"""Traces of single messages: which are traced, and the spans of their way.

    message ─┬─ accept ─┬─ encrypt       gateway
             │          └─ commit
             ├─ submit                   gateway
             ├─ relay commit             relay
             ├─ delivery                 relay
             └─ receipt                  gateway

A trace is named by its message's id, and whether a message is traced follows from that id alone. So
both roles, also after a restart, tell of the same messages with nothing added to the wire or to a
row. A span is a name, that id and two times: it has no attributes, so no content, number, user or
business can be in one. Knows no OpenTelemetry: `app.exporting` hands spans to it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from letterlockd.clock import Clock

__all__ = ["MESSAGE", "Span", "Traces"]

MESSAGE = "message"
"""The span of the whole way, which all others belong to."""

_MAX_OPEN = 10_000
"""Spans that have begun and not ended. Beyond it the oldest is dropped: its end may never come."""

_RANDOM_BYTES = 4
"""The end of a message id, all random."""


class Span(NamedTuple):
    """A part of a message's way, in nanoseconds since 1970."""

    name: str
    message_id: bytes
    begin_ns: int
    end_ns: int


class Traces:
    """Of one role. `share`: of all messages, above 0 to 1. Where there are none, nobody asks."""

    def __init__(self, export: Callable[[Span], None], share: float, clock: Clock) -> None:
        self._export = export
        self._below = int(share * 256**_RANDOM_BYTES)
        self._clock = clock
        self._open: OrderedDict[tuple[str, bytes], int] = OrderedDict()

    def now_ns(self) -> int:
        """For spans that are told when they have ended."""
        return self._clock.now_ns()

    def tell(self, name: str, message_ids: Iterable[bytes], begin_ns: int, end_ns: int) -> None:
        """What many messages went through together."""
        for message_id in message_ids:
            if self._wants(message_id):
                self._export(Span(name, bytes(message_id), begin_ns, end_ns))

    def begin(self, name: str, message_id: bytes) -> None:
        """A span begins here and ends elsewhere, or never. Begun again, it goes on."""
        if self._wants(message_id):
            self._open.setdefault((name, bytes(message_id)), self.now_ns())
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)

    def end(self, name: str, message_id: bytes) -> None:
        """It ends, if it began in this process."""
        begin_ns = self._open.pop((name, bytes(message_id)), None)
        if begin_ns is not None:
            self._export(Span(name, bytes(message_id), begin_ns, self.now_ns()))

    def _wants(self, message_id: bytes) -> bool:
        return int.from_bytes(message_id[-_RANDOM_BYTES:], "big") < self._below
