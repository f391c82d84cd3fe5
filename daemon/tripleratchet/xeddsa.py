"""XEdDSA: signatures made with an X25519 identity key, as the official client makes them.

The sign bit of the Edwards key travels in the top bit of the last signature byte (the scalar is
not negated). Signing runs on libsodium's scalar functions: no secret is ever a Python integer.
Source: facts/signal-session.md section 2.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha512

from nacl.bindings import (
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_mul,
    crypto_core_ed25519_scalar_reduce,
    crypto_scalarmult_ed25519_base_noclamp,
)

from .errors import SignatureValidationFailed
from .keys import Random
from .primitives import ed25519_verify

SIGNATURE_SIZE = 64
_HASH_PREFIX = b"\xfe" + b"\xff" * 31
_FIELD_PRIME = 2**255 - 19
_NOBODYS = {
    _FIELD_PRIME - 1,
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
}
"""The u-coordinates of small order (cr.yp.to/ecdh.html): anybody can sign for them."""
_SIGN_BIT = 0x80


def sign(private: bytes, message: bytes, random: Random) -> bytes:
    """The 64-byte signature of `message` by a clamped private key; draws 64 random bytes."""
    scalar = crypto_core_ed25519_scalar_reduce(private + bytes(32))
    public = crypto_scalarmult_ed25519_base_noclamp(scalar)
    nonce = _scalar_hash(_HASH_PREFIX, private, message, random(64))
    commitment = crypto_scalarmult_ed25519_base_noclamp(nonce)
    challenge = _scalar_hash(commitment, public, message)
    s = crypto_core_ed25519_scalar_add(nonce, crypto_core_ed25519_scalar_mul(challenge, scalar))
    return commitment + s[:31] + bytes([s[31] | public[31] & _SIGN_BIT])


def verify_signature(public: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature by a serialized identity key (33 bytes).

    Raises SignatureValidationFailed. Stricter than the official client where no honest signer
    goes: an s at or above the group order, or a point of small order, is refused.
    """
    if len(signature) != SIGNATURE_SIZE:
        raise SignatureValidationFailed(f"signature is not {SIGNATURE_SIZE} bytes")
    last = signature[63]
    edwards = _edwards_key(public[1:33], last & _SIGN_BIT)
    if not ed25519_verify(edwards, message, signature[:63] + bytes([last & ~_SIGN_BIT])):
        raise SignatureValidationFailed("signature does not match the identity key")


def _scalar_hash(*parts: bytes) -> bytes:
    return crypto_core_ed25519_scalar_reduce(sha512(b"".join(parts)).digest())


@lru_cache(1024)  # of public keys: a bundle's two signatures are by one identity
def _edwards_key(montgomery: bytes, sign_bit: int) -> bytes:
    # Public values only: y = (u-1)/(u+1).
    u = (int.from_bytes(montgomery, "little") & (2**255 - 1)) % _FIELD_PRIME
    if u in _NOBODYS:
        raise SignatureValidationFailed("identity key is of small order, or has no Edwards form")
    y = (u - 1) * pow(u + 1, -1, _FIELD_PRIME) % _FIELD_PRIME
    encoded = y.to_bytes(32, "little")
    return encoded[:31] + bytes([encoded[31] | sign_bit])
