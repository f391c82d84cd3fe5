"""Holds what a business sends against the limits of the contract, field by field.

On the path of every message: a valid one costs a few microseconds and allocates nothing. A bad one
is answered alone, by a `Refusal` that names the field and the limit; its neighbours go on. What
breaks a rule of the frame itself raises, and ends the call. No text here repeats what was sent.

Knows the contract and its limits; nothing of who sends, and nothing of what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from google.protobuf import duration_pb2
from letterlock.content.v1 import content_pb2
from letterlock.v1 import errors_pb2, messaging_pb2

from letterlockd.errors import InvalidField
from letterlockd.limits import (
    DEFAULT_LEASE_MS,
    DEFAULT_PAGE,
    DEFAULT_WINDOW,
    MAX_ACK_IDS,
    MAX_BATCH_BYTES,
    MAX_BATCH_MESSAGES,
    MAX_CALLER_TAG_BYTES,
    MAX_CONSUMER_CHARS,
    MAX_EMOJI_BYTES,
    MAX_IDEMPOTENCY_KEY_CHARS,
    MAX_KEY_ECHO_CHARS,
    MAX_LEASE_MS,
    MAX_NACK_DELAY_MS,
    MAX_PAGE,
    MAX_RECEIPT_IDS,
    MAX_TEXT_BYTES,
    MAX_WINDOW,
    MESSAGE_ID_BYTES,
    MIN_LEASE_MS,
    MIN_TIME_TO_LIVE_MS,
)
from letterlockd.model.ids import MessageId, Pseudonym
from letterlockd.model.phone import check_e164
from letterlockd.rpc.faults import refusal

__all__ = [
    "check_batch",
    "check_consumer",
    "check_event_ids",
    "check_extension",
    "check_idempotency_key",
    "check_message",
    "check_message_id",
    "check_nack_delay",
    "check_page_size",
    "check_receive_open",
    "check_user_id",
    "milliseconds_of",
    "sort_messages",
]

_HEX = "0123456789abcdef"
_ID_CHARS = 2 * MESSAGE_ID_BYTES
_ID_RULE = "must be 32 characters of lower-case hex"
_KEY_RULE = f"must be 1 to {MAX_IDEMPOTENCY_KEY_CHARS} characters of printable ASCII"
_TEXT_RULE = f"must be 1 to {MAX_TEXT_BYTES} bytes of UTF-8"
_MAX_UTF8_BYTES_PER_CHAR = 4
_SURELY_SHORT_TEXT = MAX_TEXT_BYTES // _MAX_UTF8_BYTES_PER_CHAR
_NANOS_PER_SECOND = 1_000_000_000
_NO_BOUND = 1 << 62

_EventIds: TypeAlias = (
    messaging_pb2.ReceiveAcks | messaging_pb2.ReceiveNacks | messaging_pb2.ReceiveExtensions
)


def sort_messages(
    messages: Sequence[messaging_pb2.OutgoingMessage], retention_ms: int
) -> tuple[Sequence[messaging_pb2.OutgoingMessage], list[messaging_pb2.SendResult]]:
    """The valid messages, in order, and one refusal for each other one. `retention_ms` is the
    business's, the longest time-to-live."""
    bad: dict[int, InvalidField] = {}
    for index, message in enumerate(messages):
        try:
            check_message(message, retention_ms)
        except InvalidField as error:
            bad[index] = error
    if not bad:
        return messages, []
    valid = [message for index, message in enumerate(messages) if index not in bad]
    return valid, [_refused(messages[index], error) for index, error in bad.items()]


def check_message(message: messaging_pb2.OutgoingMessage, retention_ms: int) -> None:
    """Raises `InvalidField` for the first field that breaks its limit."""
    check_idempotency_key(message.idempotency_key)
    recipient = message.WhichOneof("recipient")
    if recipient == "phone_number":
        check_e164(message.phone_number, "phone_number")
    elif recipient == "user_id":
        _check_id(message.user_id, "user_id")
    else:
        raise InvalidField("recipient", "phone_number or user_id is required")
    _check_content(message.content)
    if message.HasField("time_to_live"):
        _check_time_to_live(message, retention_ms)
    if len(message.caller_tag) > MAX_CALLER_TAG_BYTES:
        raise _too_large("caller_tag", f"at most {MAX_CALLER_TAG_BYTES} bytes")


def check_batch(batch: messaging_pb2.SendBatch) -> int:
    """How many messages the batch has. Raises `InvalidField` when it breaks a limit as a whole:
    no message alone is to blame then, and taking in a part would break its order."""
    count = len(batch.messages)
    if count == 0:
        raise InvalidField("batch.messages", f"must be 1 to {MAX_BATCH_MESSAGES} messages")
    if count > MAX_BATCH_MESSAGES:
        raise _too_large("batch.messages", f"at most {MAX_BATCH_MESSAGES} messages")
    if batch.ByteSize() > MAX_BATCH_BYTES:
        raise _too_large("batch", f"at most {MAX_BATCH_BYTES} bytes")
    return count


def check_receive_open(opening: messaging_pb2.ReceiveOpen) -> tuple[int, int, int]:
    """Window, window in bytes and lease in force; raises `InvalidField` beyond their limits."""
    if opening.window > MAX_WINDOW:
        raise InvalidField("open.window", f"must be 1 to {MAX_WINDOW} events")
    if opening.start not in messaging_pb2.ReceiveStart.values():
        raise InvalidField("open.start", "must be OLDEST or NEW")
    lease_ms = DEFAULT_LEASE_MS
    if opening.HasField("lease"):
        lease_ms = _check_lease(opening.lease, "open.lease")
    return opening.window or DEFAULT_WINDOW, opening.window_bytes or _NO_BOUND, lease_ms


def check_consumer(name: str) -> str:
    """The consumer's name, empty for none; raises `InvalidField`."""
    if len(name) > MAX_CONSUMER_CHARS or not (name.isascii() and (name.isprintable() or not name)):
        rule = f"must be at most {MAX_CONSUMER_CHARS} characters of printable ASCII"
        raise InvalidField("open.consumer", rule)
    return name


def check_event_ids(frame: _EventIds, field: str) -> Sequence[str]:
    """The frame's event ids; raises `InvalidField` for none or too many."""
    if not 1 <= len(frame.event_ids) <= MAX_ACK_IDS:
        raise InvalidField(f"{field}.event_ids", f"must be 1 to {MAX_ACK_IDS} ids")
    return frame.event_ids


def check_nack_delay(nacks: messaging_pb2.ReceiveNacks) -> int:
    """The delay in milliseconds, 0 for none; raises `InvalidField`."""
    delay_ms = milliseconds_of(nacks.delay)
    if delay_ms is None or not 0 <= delay_ms <= MAX_NACK_DELAY_MS:
        raise InvalidField("nacks.delay", f"must be 0 to {MAX_NACK_DELAY_MS // 1000} s")
    return delay_ms


def check_extension(extensions: messaging_pb2.ReceiveExtensions) -> int:
    """The lease in milliseconds, 0 for the stream's own; raises `InvalidField`."""
    if not extensions.HasField("lease"):
        return 0
    return _check_lease(extensions.lease, "extensions.lease")


def check_page_size(size: int) -> int:
    """How many things to list in one answer, by default 100; raises `InvalidField`."""
    if size > MAX_PAGE:
        raise InvalidField("page_size", f"must be 1 to {MAX_PAGE}")
    return size or DEFAULT_PAGE


def milliseconds_of(duration: duration_pb2.Duration) -> int | None:
    """A duration in whole milliseconds, rounded down; None for one that is malformed."""
    if not 0 <= duration.nanos < _NANOS_PER_SECOND or duration.seconds < 0:
        return None
    return duration.seconds * 1000 + duration.nanos // 1_000_000


def check_message_id(text: str) -> MessageId:
    """A message id from its public form; raises `InvalidField`."""
    _check_id(text, "message_id")
    return MessageId(bytes.fromhex(text))


def check_user_id(text: str) -> Pseudonym:
    """A user's id from its public form; raises `InvalidField`."""
    _check_id(text, "user_id")
    return Pseudonym(bytes.fromhex(text))


def check_idempotency_key(key: str) -> str:
    """The key; raises `InvalidField` when it cannot be one."""
    if not (0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARS and key.isascii() and key.isprintable()):
        raise InvalidField("idempotency_key", _KEY_RULE)
    return key


def _check_lease(lease: duration_pb2.Duration, field: str) -> int:
    lease_ms = milliseconds_of(lease)
    if lease_ms is None or not MIN_LEASE_MS <= lease_ms <= MAX_LEASE_MS:
        raise InvalidField(field, f"must be {MIN_LEASE_MS // 1000} to {MAX_LEASE_MS // 1000} s")
    return lease_ms


def _check_id(text: str, field: str) -> None:
    if len(text) != _ID_CHARS or text.strip(_HEX):
        raise InvalidField(field, _ID_RULE)


def _check_content(content: content_pb2.Content) -> None:
    kind = content.WhichOneof("kind")
    if kind == "text":
        body = content.text.body
        # Characters bound bytes, so that most texts need not be encoded to be measured.
        if not 0 < len(body) <= _SURELY_SHORT_TEXT:
            _check_text(body)
    elif kind is None:
        raise InvalidField("content", "a kind that this version knows is required")
    else:
        _CONTENT_CHECKS[kind](content)


def _check_text(body: str) -> None:
    if not body:
        raise InvalidField("content.text.body", _TEXT_RULE)
    if len(body.encode()) > MAX_TEXT_BYTES:
        raise _too_large("content.text.body", _TEXT_RULE)


def _check_read_receipt(content: content_pb2.Content) -> None:
    ids = content.read_receipt.message_ids
    if not 1 <= len(ids) <= MAX_RECEIPT_IDS or any(len(id_) != MESSAGE_ID_BYTES for id_ in ids):
        rule = f"must be 1 to {MAX_RECEIPT_IDS} ids of {MESSAGE_ID_BYTES} bytes"
        raise InvalidField("content.read_receipt.message_ids", rule)


def _check_reaction(content: content_pb2.Content) -> None:
    reaction = content.reaction
    if len(reaction.message_id) != MESSAGE_ID_BYTES:
        raise InvalidField("content.reaction.message_id", f"must be {MESSAGE_ID_BYTES} bytes")
    if not 1 <= len(reaction.emoji.encode()) <= MAX_EMOJI_BYTES:
        rule = f"must be 1 to {MAX_EMOJI_BYTES} bytes of UTF-8"
        raise InvalidField("content.reaction.emoji", rule)


def _check_typing(_: content_pb2.Content) -> None:
    """Both of its values are good."""


def _check_media(_: content_pb2.Content) -> None:
    rule = "media cannot be sent by this version"
    raise InvalidField("content.media", rule, reason="UNSUPPORTED_CONTENT")


_CONTENT_CHECKS: dict[str, Callable[[content_pb2.Content], None]] = {
    "read_receipt": _check_read_receipt,
    "reaction": _check_reaction,
    "typing": _check_typing,
    "media": _check_media,
}


def _check_time_to_live(message: messaging_pb2.OutgoingMessage, retention_ms: int) -> None:
    milliseconds = milliseconds_of(message.time_to_live)
    if milliseconds is None or not MIN_TIME_TO_LIVE_MS <= milliseconds <= retention_ms:
        rule = f"must be {MIN_TIME_TO_LIVE_MS // 1000} s to the retention, {retention_ms // 1000} s"
        raise InvalidField("time_to_live", rule)


def _too_large(field: str, limit: str) -> InvalidField:
    return InvalidField(field, limit, reason="TOO_LARGE")


def _refused(
    message: messaging_pb2.OutgoingMessage, error: InvalidField
) -> messaging_pb2.SendResult:
    return messaging_pb2.SendResult(
        idempotency_key=message.idempotency_key[:MAX_KEY_ECHO_CHARS],
        refused=refusal(error, errors_pb2.REFUSAL_SCOPE_MESSAGE),
    )
