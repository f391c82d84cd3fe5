"""Items as bytes: made once when a message is accepted, stored and delivered without another step.

A row's `delivery` is a serialised `Deliveries` with one item; what a gateway is told of the sender
is added on the way out (`sender_numbers`). Protobuf joins repeated fields of
bytes put one after the other, so a frame of many items is a tag, a length and the rows.
Nothing here knows of streams or of the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from letterlock.relay.v1.mailbox_pb2 import (
    ConnectResponse,
    Deliveries,
    DeviceEnvelope,
    Envelope,
    Item,
    Receipt,
    Receipts,
    Resend,
    SubmissionResults,
)

from letterlockd.model.varint import varint
from letterlockd.records.v1.relay_pb2 import ReceiptDebt, StoredItem

__all__ = [
    "Debt",
    "StoredRow",
    "deliveries_frame",
    "envelope_item",
    "read_row",
    "receipt",
    "receipts_item",
    "results_frame",
    "write_row",
]

_DELIVERIES_TAG = bytes((ConnectResponse.DELIVERIES_FIELD_NUMBER << 3 | 2,))
_RESULTS_TAG = bytes((ConnectResponse.RESULTS_FIELD_NUMBER << 3 | 2,))
_RESULT_TAG = bytes((SubmissionResults.RESULTS_FIELD_NUMBER << 3 | 2,))
_ITEM_TAG = bytes((Deliveries.ITEMS_FIELD_NUMBER << 3 | 2,))
_ITEM_ID_TAG = bytes((Item.ITEM_ID_FIELD_NUMBER << 3,))
_ENVELOPE_TAG = bytes((Item.ENVELOPE_FIELD_NUMBER << 3 | 2,))
_MESSAGE_ID_TAG = bytes((Envelope.MESSAGE_ID_FIELD_NUMBER << 3 | 2, 16))
_SENDER_TAG = bytes((Envelope.SENDER_ACCOUNT_ID_FIELD_NUMBER << 3 | 2, 16))
_RECIPIENT_TAG = bytes((Envelope.RECIPIENT_ACCOUNT_ID_FIELD_NUMBER << 3 | 2, 16))
_BODY_TAG = bytes((Envelope.BODY_FIELD_NUMBER << 3 | 2,))
_RECEIPTS_TAG = bytes((Item.RECEIPTS_FIELD_NUMBER << 3 | 2,))
_RECEIPT_TAG = bytes((Receipts.RECEIPTS_FIELD_NUMBER << 3 | 2,))
_RECEIPT_MESSAGE_TAG = bytes((Receipt.MESSAGE_ID_FIELD_NUMBER << 3 | 2, 16))
_RECEIPT_SENDER_TAG = bytes((Receipt.SENDER_ACCOUNT_ID_FIELD_NUMBER << 3 | 2, 16))
_RECEIPT_RECIPIENT_TAG = bytes((Receipt.RECIPIENT_ACCOUNT_ID_FIELD_NUMBER << 3 | 2, 16))
_DELIVERY_TAG = bytes((StoredItem.DELIVERY_FIELD_NUMBER << 3 | 2,))
_DEBT_TAG = bytes((StoredItem.DEBT_FIELD_NUMBER << 3 | 2,))
_ADDRESSEE_TAG = bytes((StoredItem.RECIPIENT_FIELD_NUMBER << 3 | 2,))


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
    accept_ms: int,
    expire_ms: int,
    sender_number: str,
    resend: Resend | None = None,
) -> tuple[bytes, bytes]:
    """One envelope as the bytes to store, and to deliver now: only the latter have the number,
    which never stands on disk in clear (I5)."""
    body = envelope.body
    fields = (  # put together by hand, so that nothing is copied twice: three times as fast
        _MESSAGE_ID_TAG,
        message_id,
        _SENDER_TAG,
        sender,
        _RECIPIENT_TAG,
        recipient,
        _terms(sender_device_id, envelope.device_id, envelope.type, accept_ms, expire_ms),
        _BODY_TAG,
        varint(len(body)),
        body,
    )
    said = b"".join(fields)
    if resend is not None:
        said += Envelope(resend=resend).SerializeToString()
    stored = _envelope_delivery(item_id, said)
    if not sender_number:
        return stored, stored
    said += Envelope(sender_phone_number=sender_number).SerializeToString()
    return stored, _envelope_delivery(item_id, said)


def receipt(debt: Debt, kind: Receipt.Kind.ValueType, device_id: int, now_ms: int) -> bytes:
    """The serialised Receipt that pays `debt`."""
    names = (
        _RECEIPT_MESSAGE_TAG,
        debt.message_id,
        _RECEIPT_SENDER_TAG,
        debt.sender,
        _RECEIPT_RECIPIENT_TAG,
        debt.recipient,
        _receipt_terms(kind, device_id, now_ms),
    )
    return b"".join(names)


def receipts_item(item_id: int, receipts: Sequence[bytes]) -> bytes:
    """Serialised receipts as the bytes to deliver."""
    said = b"".join([_RECEIPT_TAG + varint(len(one)) + one for one in receipts])
    return _delivery(item_id, _RECEIPTS_TAG, said)


def write_row(delivery: bytes, debt: Debt | None, recipient: bytes) -> bytes:
    """The value of a mailbox row."""
    parts = [_DELIVERY_TAG, varint(len(delivery)), delivery]
    if debt is not None:
        owed = _owed(debt)
        parts += (_DEBT_TAG, varint(len(owed)), owed)
    if recipient:
        parts += (_ADDRESSEE_TAG, varint(len(recipient)), recipient)
    return b"".join(parts)


def read_row(row: bytes) -> StoredRow:
    """The parts of a mailbox row."""
    stored = StoredItem.FromString(row)
    debt = None
    if stored.HasField("debt"):
        owed = stored.debt
        debt = Debt(owed.mailbox, owed.message_id, owed.sender, owed.recipient, owed.shared)
    return StoredRow(stored.delivery, debt, stored.recipient)


def _owed(debt: Debt) -> bytes:
    made = ReceiptDebt()
    made.mailbox, made.message_id, made.sender, made.recipient, made.shared = debt
    return made.SerializeToString()


@lru_cache(maxsize=64)
def _receipt_terms(kind: Receipt.Kind.ValueType, device_id: int, now_ms: int) -> bytes:
    """The fields of a Receipt that those of one batch share."""
    shared = Receipt(kind=kind, device_id=device_id)
    shared.receipt_time.FromMilliseconds(now_ms)
    return shared.SerializeToString()


@lru_cache(maxsize=1_024)
def _terms(sender_device: int, device: int, kind: int, accept_ms: int, expire_ms: int) -> bytes:
    """The small fields of an Envelope, which most of a frame share."""
    shared = Envelope(sender_device_id=sender_device, recipient_device_id=device, type=kind)
    shared.accept_time.FromMilliseconds(accept_ms)
    shared.expire_time.FromMilliseconds(expire_ms)
    return shared.SerializeToString()


def _envelope_delivery(item_id: int, envelope: bytes) -> bytes:
    return _delivery(item_id, _ENVELOPE_TAG, envelope)


def _delivery(item_id: int, tag: bytes, said: bytes) -> bytes:
    """A serialised `Deliveries` with one item, which is an envelope or receipts."""
    item = b"".join((_ITEM_ID_TAG, varint(item_id), tag, varint(len(said)), said))
    return _ITEM_TAG + varint(len(item)) + item


def results_frame(results: Sequence[bytes]) -> bytes:
    """A serialised `ConnectResponse` that answers submissions, in order."""
    body = b"".join([_RESULT_TAG + varint(len(result)) + result for result in results])
    return _RESULTS_TAG + varint(len(body)) + body


def deliveries_frame(deliveries: Sequence[bytes]) -> bytes:
    """A serialised `ConnectResponse` that delivers all of them, in order."""
    body = b"".join(deliveries)
    return _DELIVERIES_TAG + varint(len(body)) + body
