"""What a device tells its application: one class per kind of event.

Ids are bytes; content, numbers and keys stay out of every repr.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from letterlock.content.v1 import content_pb2
from letterlock.errors import LetterlockError


@dataclass(frozen=True, slots=True, eq=False)
class IncomingMessage:
    """Somebody wrote. Kept on this device, and given again after a restart, until `ack()`;
    a typing sign is not kept."""

    sender: bytes
    device_id: int
    payload: content_pb2.Payload = field(repr=False)
    on_ack: Callable[[IncomingMessage], None] = field(repr=False)
    sequence: int = field(repr=False)

    @property
    def message_id(self) -> bytes:
        """The sender's id of the message, 16 bytes."""
        return self.payload.message_id

    @property
    def content(self) -> content_pb2.Content:
        """What they said."""
        return self.payload.content

    @property
    def text(self) -> str | None:
        """The text of a message that has one."""
        content = self.payload.content
        return content.text.body if content.HasField("text") else None

    @property
    def sent_time(self) -> datetime:
        """When their end says that it was sent, in UTC."""
        return self.payload.sent_time.ToDatetime(UTC)

    def ack(self) -> None:
        """Done with it: this device forgets it with its next commit."""
        self.on_ack(self)


@dataclass(frozen=True, slots=True)
class Receipt:
    """News of a message that this device sent: `kind` is DELIVERED, EXPIRED or GONE."""

    message_id: bytes
    recipient: bytes
    kind: str


@dataclass(frozen=True, slots=True)
class IdentityChanged:
    """The identity key of an account is not the one seen before: a new phone, or somebody in
    between. Messages go on under the new key; compare safety numbers."""

    account: bytes


@dataclass(frozen=True, slots=True)
class Undecryptable:
    """A message could not be decrypted; `reason` is a RatchetError's, or MALFORMED. With
    `resend_requested` its sender was asked for it again, and it may still come."""

    sender: bytes
    device_id: int
    reason: str
    message_id: bytes
    resend_requested: bool


@dataclass(frozen=True, slots=True)
class SendRefused:
    """A message that nobody waited for was refused; nothing of it was delivered."""

    message_id: bytes
    error: LetterlockError


DeviceEvent = IncomingMessage | Receipt | IdentityChanged | Undecryptable | SendRefused
