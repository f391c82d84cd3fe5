"""HMAC-SHA-256 and HKDF under 32-byte keys: what every ratchet step is made of.

Written on hashlib because a step is a handful of tiny hashes: keying a hash once and copying it
takes two thirds to three quarters of the time of general-purpose objects, which set a hash up for
each call. The tests hold it against those. Nothing here depends on secrets but values.
Source: RFC 2104, RFC 5869.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_SIZE, _BLOCK_SIZE = 32, 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_INNER_PAD = b"\x36" * (_BLOCK_SIZE - _KEY_SIZE)
_OUTER_PAD = b"\x5c" * (_BLOCK_SIZE - _KEY_SIZE)
_NO_SALT_INNER = sha256(b"\x36" * _BLOCK_SIZE)
_NO_SALT_OUTER = sha256(b"\x5c" * _BLOCK_SIZE)
_SHA256 = SHA256()


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 (32 bytes) under a 32-byte key."""
    inner = sha256(key.translate(_INNER) + _INNER_PAD + message).digest()
    return sha256(key.translate(_OUTER) + _OUTER_PAD + inner).digest()


def mac_pair(key: bytes, one: bytes, other: bytes) -> tuple[bytes, bytes]:
    """Two messages under the same 32-byte key."""
    inner = sha256(key.translate(_INNER) + _INNER_PAD)
    outer = sha256(key.translate(_OUTER) + _OUTER_PAD)
    first_inner, first = inner.copy(), outer.copy()
    first_inner.update(one)
    first.update(first_inner.digest())
    inner.update(other)
    outer.update(inner.digest())
    return first.digest(), outer.digest()


def hkdf_pair(salt: bytes | None, secret: bytes, info: bytes) -> tuple[bytes, bytes]:
    """HKDF-SHA-256 to two blocks of 32 bytes. The salt has 32 bytes; none is 32 zero bytes."""
    if salt is None:
        inner, outer = _NO_SALT_INNER.copy(), _NO_SALT_OUTER.copy()
    else:
        inner = sha256(salt.translate(_INNER) + _INNER_PAD)
        outer = sha256(salt.translate(_OUTER) + _OUTER_PAD)
    inner.update(secret)
    outer.update(inner.digest())
    key = outer.digest()
    inner = sha256(key.translate(_INNER) + _INNER_PAD)
    outer = sha256(key.translate(_OUTER) + _OUTER_PAD)
    first_inner, first_outer = inner.copy(), outer.copy()
    first_inner.update(info + b"\x01")
    first_outer.update(first_inner.digest())
    first = first_outer.digest()
    inner.update(first + info + b"\x02")
    outer.update(inner.digest())
    return first, outer.digest()


def hkdf(salt: bytes | None, secret: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA-256 to any size: beyond two blocks the library's own is as fast."""
    return HKDF(_SHA256, size, salt, info).derive(secret)
