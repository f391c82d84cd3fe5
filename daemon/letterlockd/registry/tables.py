"""The tables of the registry and how their keys are built.

    60 businesses        business id (16) → BusinessRecord
    61 business-numbers  0x01, tag of the phone number (32) → BusinessNumberRecord
                         0x02, account (16) → tag (32)
    62 tokens            token id (8) → TokenRecord
    63 audit             UUID version 7 (16) → AuditRecord; expires after a year

A tag is a hash of the phone number keyed with the store's own key: the store cannot be searched
for a number without it.
"""

from __future__ import annotations

from letterlockd.model.ids import AccountId
from letterlockd.store.port import Table

__all__ = ["AUDIT", "BUSINESSES", "NUMBERS", "TABLES", "TOKENS", "account_key", "number_key"]

BUSINESSES = Table("businesses", 60, expires=False)
NUMBERS = Table("business-numbers", 61, expires=False)
TOKENS = Table("tokens", 62, expires=False)
AUDIT = Table("audit", 63, expires=True)

TABLES = (BUSINESSES, NUMBERS, TOKENS, AUDIT)
"""Every table of the registry."""


def number_key(tag: bytes) -> bytes:
    """NUMBERS: a number by its tag."""
    return b"\x01" + tag


def account_key(account: AccountId) -> bytes:
    """NUMBERS: the tag of the number that an account stands for."""
    return b"\x02" + account
