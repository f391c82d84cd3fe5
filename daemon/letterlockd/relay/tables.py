"""What the relay keeps, drawn as a key tree. Change a line only with a schema version.

    relay store
    ├── 40 accounts        account (16)                          → RelayAccount
    ├── 41 numbers         keyed hash of the phone number (32)   → account (16)
    ├── 42 gateways        gateway id, text                      → be64 mailbox; then, once it has
    │                      said so, its store's be64 generation and be64 position (see `pasts`)
    ├── 43 purges          be64 slot or mailbox, be64 order      → Purge: removals not yet finished
    ├── 44 pre_keys        be64 slot, kind (1), be32 key id      → public key message
    │                      kind 1 SignedPreKey (id 0), 2 last-resort KyberPreKey (id 0),
    │                      3 one-time PreKey, 4 one-time KyberPreKey
    ├── 45 mailboxes       be64 mailbox, be64 item id            → StoredItem            expires
    ├── 46 submitted       sender account (16), message id (16)  → SubmittedMessage      expires
    ├── 47 verifications   verification id (16)                  → PendingVerification   expires
    ├── 48 links           SHA-256 of the link token (32)        → PendingLink           expires
    └── 49 usage           be32 UTC day, account (16)            → UsageDay              expires

    sequences: "relay.slots" (slots and mailboxes), "relay.items" (item ids), "relay.purges"

A *slot* is one incarnation of a device: a removed device's number may be given again, its slot
never, so what is left of the old one can be cleared away later without touching the new one.
Records hold no message in clear and no phone number in clear; ids and times are what routing needs.
"""

from __future__ import annotations

import struct

from letterlockd.store.port import Table

__all__ = [
    "ACCOUNTS",
    "GATEWAYS",
    "LAST_RESORT",
    "LINKS",
    "MAILBOXES",
    "NUMBERS",
    "ONE_TIME",
    "ONE_TIME_KYBER",
    "PRE_KEYS",
    "PURGES",
    "SIGNED",
    "SUBMITTED",
    "TABLES",
    "USAGE",
    "VERIFICATIONS",
    "item_id_of",
    "item_key",
    "mailbox_prefix",
    "pre_key_key",
    "pre_key_prefix",
    "purge_key",
    "usage_key",
]

ACCOUNTS = Table("accounts", 40, expires=False)
NUMBERS = Table("numbers", 41, expires=False)
GATEWAYS = Table("gateways", 42, expires=False)
PURGES = Table("purges", 43, expires=False)
PRE_KEYS = Table("pre_keys", 44, expires=False)
MAILBOXES = Table("mailboxes", 45, expires=True)
SUBMITTED = Table("submitted", 46, expires=True)
VERIFICATIONS = Table("verifications", 47, expires=True)
LINKS = Table("links", 48, expires=True)
USAGE = Table("usage", 49, expires=True)

TABLES = (
    ACCOUNTS,
    NUMBERS,
    GATEWAYS,
    PURGES,
    PRE_KEYS,
    MAILBOXES,
    SUBMITTED,
    VERIFICATIONS,
    LINKS,
    USAGE,
)
"""Open the relay's store with these and those of the keyring."""

SIGNED = 1
LAST_RESORT = 2
ONE_TIME = 3
ONE_TIME_KYBER = 4

_NUMBER = struct.Struct(">Q")
_ITEM = struct.Struct(">QQ")
_PRE_KEY = struct.Struct(">QBI")
_DAY = struct.Struct(">I")

item_key = _ITEM.pack
"""Key of a mailbox row: (mailbox, item id)."""

mailbox_prefix = _NUMBER.pack
"""Prefix of all rows of a mailbox, or of all pre-keys of a slot."""

pre_key_key = _PRE_KEY.pack
"""Key of a pre-key: (slot, kind, key id)."""


def item_id_of(key: bytes) -> int:
    """The item id in the key of a mailbox row."""
    return int(_ITEM.unpack(key)[1])


def pre_key_prefix(slot: int, kind: int) -> bytes:
    """Prefix of the pre-keys of one kind; ascending key ids sort behind it."""
    return _NUMBER.pack(slot) + bytes((kind,))


def purge_key(slot: int, order: int) -> bytes:
    """Key of unfinished removal work; `order` makes it unique."""
    return _ITEM.pack(slot, order)


def usage_key(day: int, account: bytes) -> bytes:
    """Key of the counters of an account on a day since 1970 (UTC)."""
    return _DAY.pack(day) + account
