"""What the ratchet encrypts: a content with its message id and time, padded.

Put together from its fields, three times as fast as filling a message in; a test holds it to
protobuf's own bytes. Knows no conversation and no key.
"""

from __future__ import annotations

from functools import lru_cache

from letterlock.content.padding import pad_serialized
from letterlock.content.v1 import content_pb2

from letterlockd.model.ids import MessageId
from letterlockd.model.varint import varint

__all__ = ["padded_payload"]

_ID_TAG = b"\x0a\x10"  # Payload.message_id: field 1, 16 bytes
_CONTENT_TAG = b"\x1a"  # Payload.content: field 3, length-delimited


def padded_payload(message_id: MessageId, now_ms: int, content: bytes) -> bytes:
    """A padded letterlock.content.v1.Payload around a serialised Content."""
    parts = (_ID_TAG, message_id, _sent_time(now_ms), _CONTENT_TAG, varint(len(content)), content)
    return pad_serialized(b"".join(parts))


@lru_cache(maxsize=16)
def _sent_time(now_ms: int) -> bytes:
    """The field of a Payload, which all messages of a step share."""
    payload = content_pb2.Payload()
    payload.sent_time.FromMilliseconds(now_ms)
    return payload.SerializeToString()
