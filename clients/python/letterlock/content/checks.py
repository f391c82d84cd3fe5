"""Refuses content that the other end would have to drop: the limits of content.proto.

Pure. An error names the field and its limit, never what was written.
"""

from __future__ import annotations

from letterlock.content.v1 import content_pb2
from letterlock.errors import InvalidRequest, TooLarge

MAX_TEXT_BYTES = 16_384
MAX_RECEIPT_IDS = 100
MAX_EMOJI_BYTES = 64
MESSAGE_ID_BYTES = 16


def text_content(body: str) -> content_pb2.Content:
    """A text as content. Raises InvalidRequest for a string that has no UTF-8."""
    try:
        return content_pb2.Content(text=content_pb2.Text(body=body))
    except ValueError:  # a lone surrogate
        raise _text_refused() from None


def check_content(content: content_pb2.Content) -> None:
    """Raises InvalidRequest or TooLarge."""
    kind = content.WhichOneof("kind")
    if kind is None:
        raise InvalidRequest("nothing to say", field="content", limit="one kind is set")
    if kind == "text":
        _check_text(content.text.body)
    elif kind == "read_receipt":
        _check_receipt(content.read_receipt)
    elif kind == "reaction":
        _check_reaction(content.reaction)


def _check_text(body: str) -> None:
    if not body:
        raise _text_refused()
    if len(body.encode()) > MAX_TEXT_BYTES:
        limit = f"at most {MAX_TEXT_BYTES} bytes of UTF-8"
        raise TooLarge("text is too long", field="content.text.body", limit=limit)


def _text_refused() -> InvalidRequest:
    limit = f"1 to {MAX_TEXT_BYTES} bytes of UTF-8"
    return InvalidRequest("unusable text", field="content.text.body", limit=limit)


def _check_receipt(receipt: content_pb2.ReadReceipt) -> None:
    message_ids = receipt.message_ids
    right_size = all(len(message_id) == MESSAGE_ID_BYTES for message_id in message_ids)
    if not 1 <= len(message_ids) <= MAX_RECEIPT_IDS or not right_size:
        limit = f"1 to {MAX_RECEIPT_IDS} ids of {MESSAGE_ID_BYTES} bytes"
        field = "content.read_receipt.message_ids"
        raise InvalidRequest("unusable read receipt", field=field, limit=limit)


def _check_reaction(reaction: content_pb2.Reaction) -> None:
    if len(reaction.message_id) != MESSAGE_ID_BYTES:
        limit, field = f"{MESSAGE_ID_BYTES} bytes", "content.reaction.message_id"
        raise InvalidRequest("reaction to no message", field=field, limit=limit)
    if not 1 <= len(reaction.emoji.encode()) <= MAX_EMOJI_BYTES:
        limit, field = f"1 to {MAX_EMOJI_BYTES} bytes of UTF-8", "content.reaction.emoji"
        raise InvalidRequest("unusable emoji", field=field, limit=limit)
