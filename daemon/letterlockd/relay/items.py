"""Items as bytes: made once when a message is accepted, stored and delivered without another step.

A row's `delivery` is a serialised `Deliveries` with one item; what a gateway is told of the sender
is added on the way out (`sender_numbers`). Protobuf joins repeated fields of
bytes put one after the other, so a frame of many items is a tag, a length and the rows.
Nothing here knows of streams or of the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from letterlock.relay.v1.mailbox_pb2 import (
    ConnectResponse,
    Deliveries,
    DeviceEnvelope,
    Item,
    Receipt,
    Receipts,
    Resend,
)

from letterlockd.model.varint import varint
from letterlockd.records.v1.relay_pb2 import StoredItem

__all__ = [
    "Debt",
    "StoredRow",
    "deliveries_frame",
    "envelope_item",
    "read_row",
    "receipts_item",
    "write_row",
]

_DELIVERIES_TAG = bytes((ConnectResponse.DELIVERIES_FIELD_NUMBER << 3 | 2,))


class Debt(NamedTuple):
    """A receipt that is owed: into which mailbox, and for which message. `shared`: the message
    went to several devices, and only the first gives a receipt."""

    mailbox: int
    message_id: bytes
    sender: bytes
    recipient: bytes
    shared: bool


class StoredRow(NamedTuple):
    """What a mailbox row says. `recipient` is empty for receipts."""

    delivery: bytes
    debt: Debt | None
    recipient: bytes


def envelope_item(
    item_id: int,
    envelope: DeviceEnvelope,
    *,
    message_id: bytes,
    sender: bytes,
    sender_device_id: int,
    recipient: bytes,
    accepted: Timestamp,
    expires: Timestamp,
    sender_number: str,
    resend: Resend | None = None,
) -> tuple[bytes, bytes]:
    """One envelope as the bytes to store, and to deliver now: only the latter have the number,
    which never stands on disk in clear (I5)."""
    made = Deliveries()  # filled in place: a message that is put into another is copied
    item = made.items.add()
    item.item_id = item_id
    said = item.envelope
    said.message_id = message_id
    said.sender_account_id = sender
    said.sender_device_id = sender_device_id
    said.recipient_account_id = recipient
    said.recipient_device_id = envelope.device_id
    said.type = envelope.type
    said.body = envelope.body
    said.accept_time.MergeFrom(accepted)
    said.expire_time.MergeFrom(expires)
    if resend is not None:
        said.resend.MergeFrom(resend)
    stored = made.SerializeToString()
    if not sender_number:
        return stored, stored
    said.sender_phone_number = sender_number
    return stored, made.SerializeToString()


def receipts_item(item_id: int, receipts: Sequence[Receipt]) -> bytes:
    """Receipts as the bytes to deliver."""
    item = Item(item_id=item_id, receipts=Receipts(receipts=receipts))
    return Deliveries(items=(item,)).SerializeToString()


def write_row(delivery: bytes, debt: Debt | None, recipient: bytes) -> bytes:
    """The value of a mailbox row."""
    stored = StoredItem()
    stored.delivery = delivery
    stored.recipient = recipient
    if debt is not None:
        owed = stored.debt
        owed.SetInParent()  # also when every field has its default
        owed.mailbox, owed.message_id, owed.sender, owed.recipient, owed.shared = debt
    return stored.SerializeToString()


def read_row(row: bytes) -> StoredRow:
    """The parts of a mailbox row."""
    stored = StoredItem.FromString(row)
    debt = None
    if stored.HasField("debt"):
        owed = stored.debt
        debt = Debt(owed.mailbox, owed.message_id, owed.sender, owed.recipient, owed.shared)
    return StoredRow(stored.delivery, debt, stored.recipient)


def deliveries_frame(deliveries: Sequence[bytes]) -> bytes:
    """A serialised `ConnectResponse` that delivers all of them, in order."""
    body = b"".join(deliveries)
    return _DELIVERIES_TAG + varint(len(body)) + body
