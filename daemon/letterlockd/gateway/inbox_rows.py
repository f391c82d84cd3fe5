"""How the inbox lies in the store, and what of it is known in memory alone.

    19 inbox             account (16), be64 sequence → StoredEvents; expires
    28 dead-letters      account (16), be64 sequence, be16 position → DeadLetterRecord; expires
    29 acknowledged      as the inbox: rows that are kept for replay; expires
    30 receive-policies  account (16) → ReceivePolicyRecord

Sequence numbers ascend over restarts, so a scan gives the order of recording. An event is named by
the row and the place in it where it was first recorded, and keeps that name. Which events of a row
are acknowledged as long as others of it are not is kept in memory, bounded, and lost with the
process (those events then come again, as at-least-once allows).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from letterlockd.errors import InvalidField
from letterlockd.limits import MAX_PARTIAL_ROWS, MAX_ROW_BYTES, MAX_ROW_EVENTS
from letterlockd.model.ids import ID_BYTES, AccountId
from letterlockd.model.varint import varint
from letterlockd.records.v1.inbox_pb2 import StoredEvent
from letterlockd.store.port import Table
from letterlockd.streams.held import Place

__all__ = [
    "ACKNOWLEDGED",
    "DEAD_LETTERS",
    "INBOX",
    "INBOX_TABLES",
    "RECEIVE_POLICIES",
    "PartialRows",
    "Row",
    "dead_letter_key",
    "event_name",
    "parse_event_id",
    "row_key",
    "rows_of",
    "sequence_of",
]

INBOX = Table("inbox", 19, expires=True)
DEAD_LETTERS = Table("dead-letters", 28, expires=True)
ACKNOWLEDGED = Table("acknowledged", 29, expires=True)
RECEIVE_POLICIES = Table("receive-policies", 30, expires=False)

INBOX_TABLES = (INBOX, DEAD_LETTERS, ACKNOWLEDGED, RECEIVE_POLICIES)
"""Every table of what a business receives."""

_EVENT_TAG = b"\x0a"  # StoredEvents.events: field 1, length-delimited

_MAX_SEQUENCE_DIGITS, _MAX_POSITION_DIGITS = 16, 3


class Row(NamedTuple):
    """A row on its way: its value, and what it was made of, with each event's size in it."""

    value: bytes
    events: Sequence[StoredEvent]
    sizes: Sequence[int]


def row_key(account: AccountId, sequence: int) -> bytes:
    """The key of a row, 24 bytes."""
    return account + sequence.to_bytes(8, "big")


def sequence_of(key: bytes) -> int:
    """The sequence number in a row's key."""
    return int.from_bytes(key[ID_BYTES:], "big")


def event_name(sequence: int, position: int) -> str:
    """The id of an event that is recorded here for the first time: at most 20 characters."""
    return f"{sequence:x}.{position}"


def parse_event_id(event_id: str, field: str) -> tuple[int, int]:
    """Row and place in an event's id. Raises `InvalidField`."""
    row, _, place = event_id.partition(".")
    sequence = row.strip("0123456789abcdef") == "" and 1 <= len(row) <= _MAX_SEQUENCE_DIGITS
    position = place.isascii() and place.isdecimal() and len(place) <= _MAX_POSITION_DIGITS
    if not (sequence and position):
        raise InvalidField(field, "must be the id of an event")
    return int(row, 16), int(place)


def dead_letter_key(account: AccountId, sequence: int, position: int) -> bytes:
    """The key of a dead letter, 26 bytes; ascends in the order of recording."""
    return row_key(account, sequence) + position.to_bytes(2, "big")


def rows_of(events: Sequence[StoredEvent]) -> Iterator[Row]:
    """The events in rows, in order, each within the bounds of a row."""
    row: list[bytes] = []
    held: list[StoredEvent] = []
    sizes: list[int] = []
    size = 0
    for event in events:
        value = event.SerializeToString()
        if row and (len(held) == MAX_ROW_EVENTS or size + len(value) > MAX_ROW_BYTES):
            yield Row(b"".join(row), held, sizes)
            row, held, sizes, size = [], [], [], 0
        row += (_EVENT_TAG, varint(len(value)), value)  # repeated fields may be concatenated
        held.append(event)
        sizes.append(len(value))
        size += len(value)
    if row:
        yield Row(b"".join(row), held, sizes)


class PartialRows:
    """Acknowledged events of rows that have others: one bit each, at most `bound` rows. Beyond it
    the oldest row is forgotten, and comes again as a whole."""

    def __init__(self, bound: int = MAX_PARTIAL_ROWS) -> None:
        self._masks: OrderedDict[bytes, int] = OrderedDict()
        self._bound = bound

    def __len__(self) -> int:
        return len(self._masks)

    def acknowledged(self, key: bytes) -> int:
        """The bits of the row's acknowledged events."""
        return self._masks.get(key, 0)

    def complete(self, key: bytes, place: Place) -> bool:
        """Note that `place` is acknowledged; True when that was the row's last event, and the row
        is to be deleted: `forget` it then, or `take_back` the place if that failed."""
        mask = self._masks[key] = self._masks.get(key, 0) | 1 << place.position
        if len(self._masks) > self._bound:
            self._masks.popitem(last=False)
        return mask == (1 << place.events) - 1

    def forget(self, key: bytes) -> None:
        """The row is deleted."""
        self._masks.pop(key, None)

    def take_back(self, key: bytes, place: Place) -> None:
        """`place` is not acknowledged after all."""
        if mask := self._masks.pop(key, 0) & ~(1 << place.position):
            self._masks[key] = mask
