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
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from letterlockd.sealing.errors import SealBroken

__all__ = [
    "KEY_BYTES",
    "OVERHEAD_BYTES",
    "Cipher",
    "Deriver",
    "lookup_hash",
    "place",
    "seal",
    "subkey",
    "unseal",
]

KEY_BYTES = 32

_FORMAT = b"\x01"
_NONCE_BYTES = 12
_TAG_BYTES = 16
_LOOKUP = "lookup/"
_BODY_AT = len(_FORMAT) + _NONCE_BYTES

OVERHEAD_BYTES = _BODY_AT + _TAG_BYTES
"""How much longer sealed bytes are than what they hold: 29."""


class Cipher:
    """A 32-byte key made ready once, for who seals many things under it: that costs as much as
    sealing a text."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(
        self, plaintext: bytes, context: bytes, random: Callable[[int], bytes] = os.urandom
    ) -> bytes:
        """As `seal`."""
        nonce = random(_NONCE_BYTES)
        return _FORMAT + nonce + self._cipher.encrypt(nonce, plaintext, _FORMAT + context)

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """As `unseal`."""
        if len(sealed) < OVERHEAD_BYTES or not sealed.startswith(_FORMAT):
            raise SealBroken("sealed bytes are cut short or of an unknown format")
        try:
            return self._cipher.decrypt(
                sealed[len(_FORMAT) : _BODY_AT], sealed[_BODY_AT:], _FORMAT + context
            )
        except InvalidTag:
            raise SealBroken("sealed bytes are altered, misplaced or under another key") from None


class Deriver:
    """`subkey` and `lookup_hash` of one key that is made ready once: a third of their cost."""

    __slots__ = ("_mac",)

    def __init__(self, key: bytes) -> None:
        self._mac = HMAC(key, SHA256())

    def subkey(self, label: str, *parts: bytes) -> bytes:
        """As `subkey`."""
        mac = self._mac.copy()
        mac.update(_labelled(label, parts))
        return mac.finalize()

    def lookup_hash(self, label: str, value: bytes) -> bytes:
        """As `lookup_hash`."""
        return self.subkey(_LOOKUP + label, value)


def seal(
    key: bytes, plaintext: bytes, context: bytes, random: Callable[[int], bytes] = os.urandom
) -> bytes:
    """Seal `plaintext` under a 32-byte `key`; `random` gives the nonce and is for tests only."""
    return Cipher(key).seal(plaintext, context, random)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Open what `seal` made with the same key and context; raises `SealBroken`."""
    return Cipher(key).unseal(sealed, context)


def place(table_number: int, key: bytes) -> bytes:
    """The context of a record's value: its table and key."""
    return bytes((table_number,)) + key


def subkey(key: bytes, label: str, *parts: bytes) -> bytes:
    """A 32-byte key for one purpose (`label`) and thing (`parts`): HMAC-SHA256, one block of
    HKDF-Expand. Labels and parts carry their lengths, so no two lists collide."""
    return hmac.digest(key, _labelled(label, parts), "sha256")


def lookup_hash(key: bytes, label: str, value: bytes) -> bytes:
    """A 32-byte keyed hash to find a secret `value` (a phone number) by, without storing it.

    Keyed, because all phone numbers can be tried against a plain hash in minutes.
    """
    return subkey(key, _LOOKUP + label, value)


def _labelled(label: str, parts: Sequence[bytes]) -> bytes:
    text = label.encode()
    message = len(text).to_bytes(2, "big") + text
    for part in parts:
        message += len(part).to_bytes(4, "big") + part
    return message
