"""Seal bytes for rest (I5): AES-256-GCM bound to the place where the bytes are kept.

    sealed = format 0x01, 12-byte random nonce, ciphertext, 16-byte tag

`context` is authenticated, not stored: who moves a sealed value to another table or key, or swaps
two, breaks the seal. `place` builds it.

Random nonces keep AES-GCM safe for 2^32 seals with one key (NIST SP 800-38D, section 8.3). Keys
are therefore derived per conversation from day keys (`subkey`), so that one key sees a day of one
conversation: four thousand million messages away from that bound.

On the path of every message and in the workers: nothing is imported here but `cryptography`, the
standard library and the error tree. It knows no store, no clock and no key's origin.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from letterlockd.sealing.errors import SealBroken

__all__ = ["KEY_BYTES", "OVERHEAD_BYTES", "lookup_hash", "place", "seal", "subkey", "unseal"]

KEY_BYTES = 32

_FORMAT = b"\x01"
_NONCE_BYTES = 12
_TAG_BYTES = 16
_BODY_AT = len(_FORMAT) + _NONCE_BYTES

OVERHEAD_BYTES = _BODY_AT + _TAG_BYTES
"""How much longer sealed bytes are than what they hold: 29."""


def seal(
    key: bytes, plaintext: bytes, context: bytes, random: Callable[[int], bytes] = os.urandom
) -> bytes:
    """Seal `plaintext` under a 32-byte `key`; `random` gives the nonce and is for tests only."""
    nonce = random(_NONCE_BYTES)
    return _FORMAT + nonce + AESGCM(key).encrypt(nonce, plaintext, _FORMAT + context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Open what `seal` made with the same key and context; raises `SealBroken`."""
    if len(sealed) < OVERHEAD_BYTES or not sealed.startswith(_FORMAT):
        raise SealBroken("sealed bytes are cut short or of an unknown format")
    try:
        return AESGCM(key).decrypt(
            sealed[len(_FORMAT) : _BODY_AT], sealed[_BODY_AT:], _FORMAT + context
        )
    except InvalidTag:
        raise SealBroken("sealed bytes are altered, misplaced or under another key") from None


def place(table_number: int, key: bytes) -> bytes:
    """The context of a record's value: its table and key."""
    return bytes((table_number,)) + key


def subkey(key: bytes, label: str, *parts: bytes) -> bytes:
    """A 32-byte key for one purpose (`label`) and thing (`parts`): HMAC-SHA256, one block of
    HKDF-Expand. Labels and parts carry their lengths, so no two lists collide."""
    text = label.encode()
    message = len(text).to_bytes(2, "big") + text
    for part in parts:
        message += len(part).to_bytes(4, "big") + part
    return hmac.digest(key, message, "sha256")


def lookup_hash(key: bytes, label: str, value: bytes) -> bytes:
    """A 32-byte keyed hash to find a secret `value` (a phone number) by, without storing it.

    Keyed, because all phone numbers can be tried against a plain hash in minutes.
    """
    return subkey(key, "lookup/" + label, value)
