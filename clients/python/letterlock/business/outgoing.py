"""What a business hands over to be sent, and what it gets back: values, checked before they leave.

Only what would break a whole stream is checked here; everything else is the gateway's word.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from letterlock.content.v1 import content_pb2
from letterlock.durations import set_seconds
from letterlock.errors import InvalidRequest, LetterlockError, TooLarge
from letterlock.faults import from_refusal
from letterlock.v1 import identities_pb2, messaging_pb2

MAX_MESSAGE_BYTES = 256 * 1024
"""The largest message that is tried at all. The gateway refuses smaller ones already, one by one;
this bound keeps any single message from overflowing the frame and cutting the stream for all."""

MAX_KEY_CHARACTERS = 64


def new_idempotency_key() -> str:
    """A key that nobody has used: 32 characters of hex. It begins with the time in milliseconds
    (12 characters), with which a gateway finds and writes it cheaply."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def name_user(
    request: messaging_pb2.OutgoingMessage
    | identities_pb2.GetSafetyNumberRequest
    | identities_pb2.ConfirmIdentityRequest,
    user: str,
) -> None:
    """Say in `request` whom it is about: a phone number begins with +, all else is a user id."""
    if user.startswith("+"):
        request.phone_number = user
    else:
        request.user_id = user


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One message to one user.

    `to` is a phone number in E.164 form (it begins with +) or a user id. Either `text` or
    `content` is given. `time_to_live` is in seconds (not set: the business's retention);
    `caller_tag` (at most 128 bytes) comes back with each status update.
    """

    to: str = field(repr=False)
    text: str | None = field(default=None, repr=False)
    content: content_pb2.Content | None = field(default=None, repr=False)
    idempotency_key: str = field(default_factory=new_idempotency_key)
    time_to_live: float | None = None
    caller_tag: bytes = field(default=b"", repr=False)

    def to_proto(self) -> messaging_pb2.OutgoingMessage:
        """The message on the wire. Raises InvalidRequest or TooLarge."""
        if not 1 <= len(self.idempotency_key) <= MAX_KEY_CHARACTERS:
            limit = f"1 to {MAX_KEY_CHARACTERS} characters"
            raise InvalidRequest("unusable key", field="idempotency_key", limit=limit)
        proto = messaging_pb2.OutgoingMessage(
            idempotency_key=self.idempotency_key, caller_tag=self.caller_tag
        )
        self._say(proto.content)
        name_user(proto, self.to)
        if self.time_to_live is not None:
            set_seconds(proto.time_to_live, self.time_to_live, field="time_to_live")
        if proto.ByteSize() > MAX_MESSAGE_BYTES:
            limit = f"{MAX_MESSAGE_BYTES} bytes"
            raise TooLarge("message is too large", field="message", limit=limit)
        return proto

    def _say(self, content: content_pb2.Content) -> None:
        """Fill the content in where it goes: building it apart would copy it."""
        if (self.text is None) == (self.content is None):
            raise InvalidRequest("nothing to say", field="content", limit="text or content, one")
        if self.content is not None:
            content.CopyFrom(self.content)
        else:
            content.text.body = self.text or ""


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of one message: `accepted`, or `error` says why not. Exactly one is set."""

    idempotency_key: str
    accepted: messaging_pb2.Accepted | None = None
    error: LetterlockError | None = None


def to_result(answer: messaging_pb2.SendResult) -> SendResult:
    """The gateway's answer as a value."""
    if answer.HasField("accepted"):
        return SendResult(answer.idempotency_key, accepted=answer.accepted)
    return SendResult(answer.idempotency_key, error=from_refusal(answer.refused))
