"""Identifiers as types of their own, so that one kind of 16 bytes cannot be taken for another.

Knows nothing of where they are stored or sent.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import NewType

AccountId = NewType("AccountId", bytes)
"""A relay account: 16 random bytes (UUID version 4), of a user or of a business number."""

BusinessId = NewType("BusinessId", bytes)
"""A business in the registry: 16 random bytes."""

Pseudonym = NewType("Pseudonym", bytes)
"""A user as one business number knows them: 16 bytes; its hex form is the public `user_id`."""

ConversationId = NewType("ConversationId", bytes)
"""A business number and a user: AccountId of the number || Pseudonym, 32 bytes."""

MessageId = NewType("MessageId", bytes)
"""A message: 16 bytes, a UUID version 7, so that consecutive messages lie together on disk."""

ID_BYTES = 16
CONVERSATION_BYTES = 2 * ID_BYTES


def new_account_id(random: Callable[[int], bytes]) -> AccountId:
    """A fresh account id (UUID version 4)."""
    return AccountId(uuid.UUID(bytes=random(ID_BYTES), version=4).bytes)


def new_message_id(now_ms: int, random: Callable[[int], bytes]) -> MessageId:
    """A fresh message id: UUID version 7 (48 bits of Unix milliseconds, 74 random bits)."""
    tail = bytearray(random(10))
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    return MessageId(now_ms.to_bytes(6, "big") + bytes(tail))


def conversation_id(number: AccountId, user: Pseudonym) -> ConversationId:
    """The conversation of a business number's account with a user."""
    return ConversationId(number + user)


def ratchet_name(account: AccountId) -> str:
    """The account as a ratchet address name: the hyphenated UUID text, which libsignal takes for a
    ServiceId and therefore binds into the first message's MAC (facts/signal-session.md, 4)."""
    if len(account) != ID_BYTES:
        raise ValueError("an account id has 16 bytes")
    text = account.hex()  # uuid.UUID does the same in ten times the time, on every message
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
