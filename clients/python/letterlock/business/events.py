"""One event of a Receive stream in the caller's hands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from letterlock.content.v1 import content_pb2
from letterlock.durations import check_seconds
from letterlock.enums import enum_name
from letterlock.v1 import messaging_pb2

MAX_SECONDS = 600.0
"""The contract's longest lease, and longest delay of a nack."""


class Receiver(Protocol):
    """The stream that an event came from."""

    def ack(self, event: Event) -> None:
        """See `Event.ack`."""
        ...

    def nack(self, event: Event, delay: float) -> None:
        """See `Event.nack`."""
        ...

    def extend(self, event: Event, seconds: float) -> None:
        """See `Event.extend`."""
        ...


def status_name(status: messaging_pb2.MessageStatus.ValueType) -> str:
    """ACCEPTED, SENT, ...; of a status of a newer gateway the number."""
    return enum_name(messaging_pb2.MessageStatus, status, "MESSAGE_STATUS_")


class Event:
    """Something that happened to a business number.

    `kind` is "message", "status", "identity_change", "undecryptable", or "" for a kind that this
    version does not know: acknowledge it all the same. Of the four attributes of those names one
    is set. The event is given again, also to the next process, until `ack()` has reached the
    gateway; keep what you need of it first. It keeps its `event_id`. After the gateway's number of
    failed attempts it becomes a dead letter (`BusinessClient.inbox`).
    """

    __slots__ = ("_proto", "_receiver")

    def __init__(self, proto: messaging_pb2.Event, receiver: Receiver) -> None:
        self._proto = proto
        self._receiver = receiver

    def __repr__(self) -> str:
        return f"Event({self.event_id!r}, {self.kind!r})"

    @property
    def event_id(self) -> str:
        """Names the event; opaque."""
        return self._proto.event_id

    @property
    def kind(self) -> str:
        """Which of the attributes is set."""
        return self._proto.WhichOneof("kind") or ""

    @property
    def time(self) -> datetime:
        """When the gateway recorded it, in UTC."""
        return self._proto.event_time.ToDatetime(UTC)

    @property
    def redelivered(self) -> bool:
        """Whether the gateway gave it before: it may have been worked on."""
        return self._proto.redelivered

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1; nacks, leases that ran out and lost streams count."""
        return self._proto.attempt

    @property
    def user_id(self) -> str:
        """The user whom it is about: their events come in order."""
        kind = self._proto.WhichOneof("kind")
        return "" if kind is None else getattr(self._proto, kind).user_id

    @property
    def message(self) -> messaging_pb2.InboundMessage | None:
        """A user wrote."""
        return self._proto.message if self._proto.HasField("message") else None

    @property
    def status(self) -> messaging_pb2.StatusUpdate | None:
        """A sent message got on."""
        return self._proto.status if self._proto.HasField("status") else None

    @property
    def status_name(self) -> str | None:
        """How far a sent message has come: "SENT", "DELIVERED", "READ", "FAILED", "EXPIRED"; of a
        status of a newer gateway its number."""
        return None if self.status is None else status_name(self.status.status)

    @property
    def identity_change(self) -> messaging_pb2.IdentityChange | None:
        """A user has a new identity key."""
        return self._proto.identity_change if self._proto.HasField("identity_change") else None

    @property
    def undecryptable(self) -> messaging_pb2.UndecryptableMessage | None:
        """A message of a user could not be decrypted. With `resend_requested` it comes as a message
        of the same id once their device has sent it again."""
        return self._proto.undecryptable if self._proto.HasField("undecryptable") else None

    @property
    def undecryptable_reason(self) -> str | None:
        """Why it could not be decrypted: "NO_SESSION", "INVALID", …, "NOT_RESENT" for one that has
        not come again; of a reason of a newer gateway its number."""
        lost = self.undecryptable
        if lost is None:
            return None
        return enum_name(messaging_pb2.UndecryptableMessage.Reason, lost.reason, "REASON_")

    @property
    def content(self) -> content_pb2.Content | None:
        """What the user said; set for messages."""
        return self._proto.message.content if self._proto.HasField("message") else None

    @property
    def text(self) -> str | None:
        """The text of a message that has one."""
        content = self.content
        return content.text.body if content is not None and content.HasField("text") else None

    def ack(self) -> None:
        """Done with it: it may be forgotten. Returns at once; acks travel in batches."""
        self._receiver.ack(self)

    def nack(self, delay: float = 0.0) -> None:
        """Could not be worked on: it is to come again, to this receiver or another one, after
        `delay` seconds (0 to 600), and what follows it of the same user behind it. Counts as a
        failed attempt. Returns at once. Raises InvalidRequest."""
        check_seconds(delay, field="delay", least=0, most=MAX_SECONDS)
        self._receiver.nack(self, delay)

    def extend(self, seconds: float) -> None:
        """Needs `seconds` (1 to 600) more from now, when that is longer than the stream's lease,
        which renews itself. Returns at once. Raises InvalidRequest."""
        check_seconds(seconds, field="seconds", least=1, most=MAX_SECONDS)
        self._receiver.extend(self, seconds)
