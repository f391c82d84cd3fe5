"""What a batch owes to senders: which receipts, and the changes that make them come once.

An acknowledged, expired or removed item settles the debt that its row carries. A message for one
device has one row, so deleting the row is enough to make the receipt unique. A message for several
has its state in `submitted`: the first device that takes it settles it, or the last one to die.

Works inside a batch of the `journal`: what it reads is what is true when the batch is committed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from letterlock.relay.v1.mailbox_pb2 import Receipt

from letterlockd.records.v1.relay_pb2 import SubmittedMessage
from letterlockd.relay.connection import Outgoing
from letterlockd.relay.items import Debt, read_row, receipt, receipts_item, write_row
from letterlockd.relay.tables import MAILBOXES, SUBMITTED, item_key
from letterlockd.store.port import Delete, Put, Record, Store

__all__ = ["Acknowledged", "Batch", "Died", "Kind", "Receipts", "Settling"]

_MAX_RECEIPTS = 1_000
"""Receipts in one item: some 80 kB."""

Kind: TypeAlias = "Receipt.Kind.ValueType"


_FAILED: Kind = Receipt.KIND_UNSPECIFIED
"""Taken, but not decrypted: no receipt, its sender hears of it from the device."""


class Acknowledged(NamedTuple):
    """Items that a stream is done with: (item id, debt). Those in `failed` could not be decrypted
    there. `done` is called once it is durable."""

    mailbox: int
    device_id: int
    items: Sequence[tuple[int, Debt | None]]
    done: Callable[[], None]
    failed: frozenset[int] = frozenset()

    @property
    def row_count(self) -> int:
        """How many rows go."""
        return len(self.items)

    @property
    def owes(self) -> bool:
        """Whether a receipt is due for any of them."""
        return any(debt is not None for _, debt in self.items)


class Died(NamedTuple):
    """Rows that expired or were removed. Those that are gone by then, or acknowledged, are left."""

    kind: Kind
    rows: Sequence[tuple[int, int]]
    done: Callable[[], None]
    forgive: Callable[[int, int], None]

    @property
    def row_count(self) -> int:
        """How many rows go at most."""
        return len(self.rows)


Settling = Acknowledged | Died


class _Event(NamedTuple):
    kind: Kind
    device_id: int
    debt: Debt


@dataclass(slots=True)
class Batch:
    """Changes of one transaction and the items that it brings."""

    changes: list[Put | Delete] = field(default_factory=list)
    items: list[Outgoing] = field(default_factory=list)
    freed: list[tuple[int, int]] = field(default_factory=list)
    """(mailbox, bytes) of rows that died; acknowledged ones are counted by who knows their size."""


class Receipts:
    """Turns what happened into receipts. `is_leaving(mailbox, item id)` tells of acknowledged
    items: those do not die any more."""

    def __init__(self, store: Store, kept_ms: int, is_leaving: Callable[[int, int], bool]) -> None:
        self._store = store
        self._kept_ms = kept_ms
        self._is_leaving = is_leaving

    @staticmethod
    def ids_needed(settlings: Sequence[Settling]) -> int:
        """At most how many item ids `settle` will use."""
        needed = 0
        for one in settlings:
            if isinstance(one, Acknowledged):
                for _, debt in one.items:
                    needed += debt is not None
            else:
                needed += len(one.rows)
        return needed

    async def settle(self, settlings: Sequence[Settling], first_id: int, now_ms: int) -> Batch:
        """The batch for `settlings`; item ids count up from `first_id`."""
        batch = Batch()
        events: list[_Event] = []
        for one in settlings:
            if isinstance(one, Acknowledged):
                _acknowledge(one, batch, events)
            else:
                await self._bury(one, batch, events)
        await self._give(events, batch, first_id, now_ms)
        return batch

    async def _bury(self, died: Died, batch: Batch, events: list[_Event]) -> None:
        keys = [item_key(*row) for row in died.rows]
        records = await self._store.get_many(MAILBOXES, keys)
        for (mailbox, item_id), key, record in zip(died.rows, keys, records, strict=True):
            if record is None or self._is_leaving(mailbox, item_id):
                continue
            died.forgive(mailbox, item_id)
            batch.changes.append(Delete(MAILBOXES, key))
            batch.freed.append((mailbox, len(record.value)))
            debt = read_row(record.value).debt
            if debt is not None:
                events.append(_Event(died.kind, 0, debt))

    async def _give(
        self, events: Sequence[_Event], batch: Batch, first_id: int, now_ms: int
    ) -> None:
        events = await self._first_ones(events, batch)
        by_mailbox: defaultdict[int, list[bytes]] = defaultdict(list)
        for kind, device_id, debt in events:
            by_mailbox[debt.mailbox].append(receipt(debt, kind, device_id, now_ms))
        for mailbox, receipts in by_mailbox.items():
            for start in range(0, len(receipts), _MAX_RECEIPTS):
                delivery = receipts_item(first_id, receipts[start : start + _MAX_RECEIPTS])
                row = write_row(delivery, None, b"")
                key = item_key(mailbox, first_id)
                batch.changes.append(Put(MAILBOXES, key, row, now_ms + self._kept_ms))
                batch.items.append(Outgoing(mailbox, first_id, delivery, len(row), None))
                first_id += 1

    async def _first_ones(self, events: Sequence[_Event], batch: Batch) -> Sequence[_Event]:
        """Leaves one event of each message that went to several devices, and none of those that
        were settled before."""
        keys = list(dict.fromkeys(_key(event.debt) for event in events if event.debt.shared))
        if not keys:
            return events
        records = dict(zip(keys, await self._store.get_many(SUBMITTED, keys), strict=True))
        states = {key: _state(record) for key, record in records.items()}
        first = [
            event
            for event in events
            if not event.debt.shared or _settles(states[_key(event.debt)], event.kind)
        ]
        for key, record in records.items():
            if record is not None:
                value = states[key].SerializeToString()
                batch.changes.append(Put(SUBMITTED, key, value, record.expires_at_ms))
        return first


def _acknowledge(one: Acknowledged, batch: Batch, events: list[_Event]) -> None:
    mailbox, device_id = one.mailbox, one.device_id
    for item_id, debt in one.items:
        batch.changes.append(Delete(MAILBOXES, item_key(mailbox, item_id)))
        if debt is not None and item_id not in one.failed:
            events.append(_Event(Receipt.KIND_DELIVERED, device_id, debt))
        elif debt is not None and debt.shared:
            events.append(_Event(_FAILED, device_id, debt))


def _settles(state: SubmittedMessage, kind: Kind) -> bool:
    if state.settled:
        return False
    state.copies = max(0, state.copies - 1)
    if kind != _FAILED:
        state.settled = kind != Receipt.KIND_GONE or not state.copies
    return state.settled


def _state(record: Record | None) -> SubmittedMessage:
    # Swept already: it expired, and its rows with it; whoever settled it first has done so.
    if record is None:
        return SubmittedMessage(settled=True)
    return SubmittedMessage.FromString(record.value)


def _key(debt: Debt) -> bytes:
    return debt.sender + debt.message_id
