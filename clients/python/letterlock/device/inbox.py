"""From the relay's items to a device's events, and the messages its application has not acked.

Notes rows; nothing may be acknowledged or handed out before they are committed. One bad item
becomes an event and leaves the others alone. Knows no network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from google.protobuf.message import DecodeError
from tripleratchet import DuplicatedMessage, RatchetError

from letterlock.content.v1 import content_pb2
from letterlock.device.events import (
    DeviceEvent,
    IdentityChanged,
    IncomingMessage,
    Receipt,
    Undecryptable,
)
from letterlock.device.healing import MAX_ATTEMPTS, PLAINTEXT, Healing, Report, read_report
from letterlock.device.outbox import Waiting
from letterlock.device.rows import IN, SEEN, Rows
from letterlock.device.sent import Sent
from letterlock.device.sessions import Sessions
from letterlock.enums import enum_name
from letterlock.relay.v1 import mailbox_pb2

MAX_SEEN = 4_096
"""Ids of inbound messages remembered. The ratchet and the relay drop repeats as well; this list
catches a message that was encrypted a second time because its sender saw no answer."""


class TakenIn(NamedTuple):
    """What came of an item: `events` for the application, a `complaint` that goes to the sender of
    what could not be decrypted, a `report` that we are to act on."""

    events: list[DeviceEvent]
    complaint: Waiting | None = None
    report: Report | None = None


class Inbox:
    """Inbound messages of one device."""

    def __init__(
        self,
        sessions: Sessions,
        sent: Sent,
        healing: Healing,
        rows: Rows,
        stored: dict[bytes, bytes],
        on_ack: Callable[[IncomingMessage], None],
    ) -> None:
        """`stored`: all rows of the device."""
        self._sessions = sessions
        self._sent = sent
        self._healing = healing
        self._rows = rows
        self._on_ack = on_ack
        seen = (name[len(SEEN) :] for name in stored if name.startswith(SEEN))
        # Ids begin with their time, so their order is about the order in which they came.
        self._seen = dict.fromkeys(sorted(seen, key=lambda key: key[16:]))
        waiting = sorted(name for name in stored if name.startswith(IN))
        self._sequence = int.from_bytes(waiting[-1][len(IN) :], "big") if waiting else 0
        self.unacknowledged = [self._from_row(name, stored[name]) for name in waiting]
        """Messages of an earlier process that were not acked."""

    def take_in(self, item: mailbox_pb2.Item, now_ms: int) -> TakenIn:
        """What one item of the mailbox is; never raises for a bad one."""
        if item.HasField("receipts"):
            return TakenIn([self._receipt(receipt) for receipt in item.receipts.receipts])
        if not item.HasField("envelope"):
            return TakenIn([])
        if item.envelope.type == PLAINTEXT:
            return TakenIn([], report=read_report(item.envelope))
        try:
            return TakenIn(self._opened(item.envelope, now_ms))
        except DuplicatedMessage:
            return TakenIn([])  # committed before; its acknowledgement was lost
        except RatchetError as error:
            complaint = self._healing.complain(item.envelope, now_ms)
            asked = complaint is not None and item.envelope.resend.attempt < MAX_ATTEMPTS
            return TakenIn([_undecryptable(item.envelope, error.reason, asked=asked)], complaint)

    def acknowledge(self, message: IncomingMessage) -> None:
        """The application is done with a message."""
        self._rows.delete(_row(message.sequence))

    def _opened(self, envelope: mailbox_pb2.Envelope, now_ms: int) -> list[DeviceEvent]:
        opened = self._sessions.decrypt(envelope, now_ms)
        events: list[DeviceEvent] = []
        if opened.identity_changed:
            events.append(IdentityChanged(envelope.sender_account_id))
        message = self._message(envelope, opened.plaintext)
        if message is not None:
            events.append(message)
        return events

    def _receipt(self, receipt: mailbox_pb2.Receipt) -> Receipt:
        self._sent.forget(receipt.message_id)
        kind = enum_name(mailbox_pb2.Receipt.Kind, receipt.kind, "KIND_")
        return Receipt(receipt.message_id, receipt.recipient_account_id, kind)

    def _message(self, envelope: mailbox_pb2.Envelope, plaintext: bytes) -> DeviceEvent | None:
        try:
            payload = content_pb2.Payload.FromString(plaintext)
        except DecodeError:
            return _undecryptable(envelope, "MALFORMED")
        if len(payload.message_id) != 16:
            return _undecryptable(envelope, "MALFORMED")
        if not self._is_new(envelope.sender_account_id + payload.message_id):
            return None
        self._sequence += 1
        sender, device = envelope.sender_account_id, envelope.sender_device_id
        if not payload.content.HasField("typing"):
            self._rows.put(_row(self._sequence), sender + bytes([device]) + plaintext)
        return IncomingMessage(sender, device, payload, self._on_ack, self._sequence)

    def _is_new(self, key: bytes) -> bool:
        if key in self._seen:
            return False
        self._seen[key] = None
        self._rows.put(SEEN + key, b"")
        if len(self._seen) > MAX_SEEN:
            oldest = next(iter(self._seen))
            del self._seen[oldest]
            self._rows.delete(SEEN + oldest)
        return True

    def _from_row(self, name: bytes, row: bytes) -> IncomingMessage:
        payload = content_pb2.Payload.FromString(row[17:])
        sequence = int.from_bytes(name[len(IN) :], "big")
        return IncomingMessage(row[:16], row[16], payload, self._on_ack, sequence)


def _row(sequence: int) -> bytes:
    return IN + sequence.to_bytes(8, "big")


def _undecryptable(
    envelope: mailbox_pb2.Envelope, reason: str, *, asked: bool = False
) -> Undecryptable:
    return Undecryptable(
        envelope.sender_account_id,
        envelope.sender_device_id,
        reason,
        envelope.resend.message_id or envelope.message_id,
        asked,
    )
