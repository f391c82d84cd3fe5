"""Reads what the other end encrypted, and keeps its claims within the contract's limits.

The sender is authenticated, which does not make it sane: a payload past its limits would reach
the business's backend through our mouth. Source: letterlock/content/v1/content.proto.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError
from letterlock.content.v1 import content_pb2

from letterlockd.limits import (
    LAST_SECOND,
    MAX_EMOJI_BYTES,
    MAX_RECEIPT_IDS,
    MAX_TEXT_BYTES,
    MESSAGE_ID_BYTES,
)
from letterlockd.records.v1 import jobs_pb2

__all__ = ["BadPayload", "read_payload"]


class BadPayload(Exception):
    """The plaintext is no Payload within its limits."""


def read_payload(plaintext: bytes, told: jobs_pb2.Decrypted) -> None:
    """Tell what the front has to know of a payload; the content itself is left out.

    A content of a kind that we do not know is a message. Raises `BadPayload`, and `told` may hold
    a part then.
    """
    try:
        payload = content_pb2.Payload.FromString(plaintext)
    except DecodeError:
        raise BadPayload from None
    if len(payload.message_id) != MESSAGE_ID_BYTES or not payload.HasField("content"):
        raise BadPayload
    told.message_id = payload.message_id
    told.kind = jobs_pb2.PAYLOAD_KIND_MESSAGE
    told.sent_ms = _sent_ms(payload)
    _read_content(payload.content, told)


def _read_content(content: content_pb2.Content, told: jobs_pb2.Decrypted) -> None:
    kind = content.WhichOneof("kind")
    if kind == "text":
        _require(1 <= len(content.text.body.encode()) <= MAX_TEXT_BYTES)
    elif kind == "read_receipt":
        ids = content.read_receipt.message_ids
        _require(
            1 <= len(ids) <= MAX_RECEIPT_IDS and all(len(id_) == MESSAGE_ID_BYTES for id_ in ids)
        )
        told.kind = jobs_pb2.PAYLOAD_KIND_READ_RECEIPT
        told.read_message_ids.extend(ids)
    elif kind == "typing":
        told.kind = jobs_pb2.PAYLOAD_KIND_TYPING
        told.typing_started = content.typing.started
    elif kind == "reaction":
        _require(len(content.reaction.message_id) == MESSAGE_ID_BYTES)
        _require(1 <= len(content.reaction.emoji.encode()) <= MAX_EMOJI_BYTES)


def _sent_ms(payload: content_pb2.Payload) -> int:
    time = payload.sent_time
    _require(0 <= time.seconds <= LAST_SECOND and 0 <= time.nanos < 1_000_000_000)
    return time.seconds * 1_000 + time.nanos // 1_000_000


def _require(within: bool) -> None:
    if not within:
        raise BadPayload
