"""Status records as they are on disk, of messages that news are expected about.

    accepted ──keep──▶ known ──take──▶ with Progress ──commit──▶ keep, or forgotten at an end
                         └ too many: the oldest is forgotten, and read from the store

Every message gets news within moments: without this each would be read back and parsed, twice. A
record is here only between its commit and the next news, so what is here is what is on disk. Knows
no store.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from letterlock.v1 import messaging_pb2 as api

from letterlockd.model.ids import MessageId
from letterlockd.records.v1.gateway_pb2 import MessageRecord

__all__ = ["Recent", "Written"]

_MAX_KEPT = 8_192
"""Some 8 MB, at most 20; four times what may be unanswered at the relay."""

_MAX_PAYLOAD = 2_048
"""A record with a larger payload is read back from the store when there is news."""

_EXPECTING = frozenset({api.MESSAGE_STATUS_ACCEPTED, api.MESSAGE_STATUS_SENT})
"""Statuses that soon change. After DELIVERED a user may take days to read."""


class Written(NamedTuple):
    """A record and when its row expires, as they were committed."""

    record: MessageRecord
    expires_at_ms: int


class Recent:
    """At most `bound` records; they belong to whoever takes them."""

    def __init__(self, bound: int = _MAX_KEPT) -> None:
        self._kept: OrderedDict[MessageId, Written] = OrderedDict()
        self._bound = bound

    def keep(self, message_id: MessageId, written: Written) -> None:
        """This is durable, and nobody changes `written.record` any more."""
        record = written.record
        if record.status in _EXPECTING and len(record.sealed_payload) <= _MAX_PAYLOAD:
            self._kept[message_id] = written
            if len(self._kept) > self._bound:
                self._kept.popitem(last=False)

    def take(self, message_id: MessageId, now_ms: int) -> Written | None:
        """Give the record away, to be changed. None: read the row, it may also be gone."""
        written = self._kept.pop(message_id, None)
        return None if written is None or written.expires_at_ms <= now_ms else written
