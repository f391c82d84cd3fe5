"""Checks XEdDSA signatures over published pre-keys. Public data only: the relay has no key.

An identity key is an X25519 key; the sign bit of its Edwards form travels in the top bit of the
signature's last byte, so one identity key stands for two Edwards keys.
Source: facts/signal-session.md section 2. It may not use `tripleratchet`: I3 is proved by imports.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from letterlockd.errors import Conflict, InvalidField

__all__ = ["IDENTITY_KEY_BYTES", "SIGNATURE_BYTES", "IdentityVerifier"]

IDENTITY_KEY_BYTES = 33
SIGNATURE_BYTES = 64

_TYPE_CURVE25519 = 5
_FIELD_PRIME = 2**255 - 19
_SIGN_BIT = 0x80


class IdentityVerifier:
    """Verifies what one account signed. Making one costs an inversion (some 50 µs), a check about
    100 µs: callers let the loop run between checks."""

    def __init__(self, identity_key: bytes, field: str) -> None:
        """Raises `InvalidField` unless the key is 05 and 32 bytes with an Edwards form."""
        if len(identity_key) != IDENTITY_KEY_BYTES or identity_key[0] != _TYPE_CURVE25519:
            raise InvalidField(field, f"must be {IDENTITY_KEY_BYTES} bytes that begin with 05")
        u = int.from_bytes(identity_key[1:], "little") % 2**255 % _FIELD_PRIME
        if u == _FIELD_PRIME - 1:
            raise InvalidField(field, "must have an Edwards form")
        self._y = (u - 1) * pow(u + 1, -1, _FIELD_PRIME) % _FIELD_PRIME
        self._keys: dict[int, Ed25519PublicKey] = {}

    def verify(self, message: bytes, signature: bytes, field: str) -> None:
        """Raises `InvalidField` for a wrong length and `Conflict` (BAD_PRE_KEYS) naming `field`
        when the signature is not this identity's over `message`."""
        if len(signature) != SIGNATURE_BYTES:
            raise InvalidField(field, f"must be {SIGNATURE_BYTES} bytes")
        last = signature[-1]
        plain = signature[:-1] + bytes((last & ~_SIGN_BIT,))
        try:
            self._key(last & _SIGN_BIT).verify(plain, message)
        except (InvalidSignature, ValueError):
            raise Conflict(
                f"{field}: does not verify against the identity key",
                reason="BAD_PRE_KEYS",
                field=field,
            ) from None

    def _key(self, sign: int) -> Ed25519PublicKey:
        key = self._keys.get(sign)
        if key is None:
            encoded = bytearray(self._y.to_bytes(32, "little"))
            encoded[31] |= sign
            key = self._keys[sign] = Ed25519PublicKey.from_public_bytes(bytes(encoded))
        return key
