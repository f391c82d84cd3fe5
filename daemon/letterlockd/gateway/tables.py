"""The tables of the gateway's core and how their keys are built.

    10 numbers           number account (16) → NumberRecord
                         0x00, tag of its phone number (32) → the same, begun before the account
    11 pre-keys          key scope (16), kind (1), key id be32 → private pre-key, sealed
    12 last-resort-uses  account (16), use (32) → nothing; expires
    13 conversations     account (16), pseudonym (16) → user account (16), then the sealed record
    15 lookups           account (16), tag of the phone number (32) → pseudonym (16); expires
    16 messages          message id (16) → MessageRecord; expires
    17 idempotency       account (16), tag of the caller's key (32) → IdempotencyRecord; expires
    18 outbox            be64 → OutboxRecord; expires
    20 seen              account (16), sender (16), message id (16) → nothing; expires
    21 asked             account (16), pseudonym (16), message id (16) → AskedRecord; expires
    24 held              conversation (32), be64 → OutboxRecord without a submission; expires

The inbox (19) has its own module. Tags are keyed hashes (`Keys`): the store cannot be searched
for a phone number without the number's scope key. The first 4 bytes of a key's tag are those of its
beginning (`Number.key_tag`). This module knows no values' insides.
"""

from __future__ import annotations

from letterlockd.model.ids import ID_BYTES, AccountId, ConversationId, MessageId
from letterlockd.store.port import Table

__all__ = [
    "ASKED",
    "CONVERSATIONS",
    "HELD",
    "IDEMPOTENCY",
    "LAST_RESORT_USES",
    "LOOKUPS",
    "MESSAGES",
    "NUMBERS",
    "OUTBOX",
    "PRE_KEYS",
    "SEEN",
    "TABLES",
    "account_of",
    "asked_key",
    "held_key",
    "join_conversation",
    "outbox_key",
    "pending_number_key",
    "pre_key_key",
    "pseudonym_part",
    "seen_key",
    "split_conversation",
]

NUMBERS = Table("numbers", 10, expires=False)
PRE_KEYS = Table("pre-keys", 11, expires=False)
LAST_RESORT_USES = Table("last-resort-uses", 12, expires=True)
CONVERSATIONS = Table("conversations", 13, expires=False)
LOOKUPS = Table("lookups", 15, expires=True)
MESSAGES = Table("messages", 16, expires=True)
IDEMPOTENCY = Table("idempotency", 17, expires=True)
OUTBOX = Table("outbox", 18, expires=True)
SEEN = Table("seen", 20, expires=True)
ASKED = Table("asked", 21, expires=True)
HELD = Table("held", 24, expires=True)

TABLES = (
    NUMBERS,
    PRE_KEYS,
    LAST_RESORT_USES,
    CONVERSATIONS,
    LOOKUPS,
    MESSAGES,
    IDEMPOTENCY,
    OUTBOX,
    SEEN,
    ASKED,
    HELD,
)
"""Every table of the core."""


def pending_number_key(tag: bytes) -> bytes:
    """NUMBERS: a registration under way. 33 bytes, so it is never an account's key."""
    return b"\x00" + tag


def pre_key_key(key_scope: bytes, kind: int, key_id: int) -> bytes:
    """PRE_KEYS: one private pre-key; `kind` is a PreKeyKind. Under the number's key scope, because
    the first ones are older than its account."""
    return key_scope + bytes((kind,)) + key_id.to_bytes(4, "big")


def outbox_key(sequence: int) -> bytes:
    """OUTBOX: ascending, so that a scan gives the order of acceptance."""
    return sequence.to_bytes(8, "big")


def seen_key(account: AccountId, sender: AccountId, message: MessageId) -> bytes:
    """SEEN: a message of a user that was worked already."""
    return account + sender + message


def asked_key(conversation: ConversationId, message: MessageId) -> bytes:
    """ASKED: a message of a user that could not be decrypted and is to come again."""
    return conversation + message


def held_key(conversation: ConversationId, sequence: int) -> bytes:
    """HELD: a message by its number in the outbox, so that a scan gives the order of acceptance."""
    return conversation + sequence.to_bytes(8, "big")


def account_of(conversation: ConversationId) -> AccountId:
    """The business number's account in a conversation's key."""
    return AccountId(conversation[:ID_BYTES])


def pseudonym_part(conversation: ConversationId) -> bytes:
    """The pseudonym in a conversation's key."""
    return conversation[ID_BYTES:]


def join_conversation(user: AccountId, sealed_record: bytes) -> bytes:
    """CONVERSATIONS: a row's value. The user's account stands before the seal, because the
    front addresses envelopes with it and does not open records."""
    return user + sealed_record


def split_conversation(value: bytes) -> tuple[AccountId, bytes]:
    """The parts of a row's value."""
    return AccountId(value[:ID_BYTES]), value[ID_BYTES:]
