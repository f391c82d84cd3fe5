"""The primitives on Python and its well-kept libraries: what they are without a compiler.

The hashes are written on hashlib because a ratchet step is a handful of tiny ones: keying a hash
once and copying it takes two thirds to three quarters of the time of general-purpose objects, which
set one up for each call. No time depends on secrets. The tests hold all against the libraries.
Source: RFC 2104, RFC 5869, RFC 7748, RFC 8032, FIPS 203.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base, crypto_sign_open
from nacl.exceptions import BadSignatureError

_KEY_SIZE, _HASH_BLOCK = 32, 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_INNER_PAD = b"\x36" * (_HASH_BLOCK - _KEY_SIZE)
_OUTER_PAD = b"\x5c" * (_HASH_BLOCK - _KEY_SIZE)
_NO_SALT_INNER = sha256(b"\x36" * _HASH_BLOCK)
_NO_SALT_OUTER = sha256(b"\x5c" * _HASH_BLOCK)
_SHA256 = SHA256()
_BLOCK = 16


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


class _Cbc(Cipher[CBC]):
    """AES-256-CBC without Cipher's checks, which are half of its time: AES256 and CBC make the same
    ones, but for the IV's size, and an IV here is 16 bytes of message keys."""

    def __init__(self, key: bytes, iv: bytes) -> None:
        self.algorithm = AES256(key)
        self.mode = CBC(iv)


def aes256_cbc_encrypt(key: bytes, iv: bytes, plaintext: bytes) -> bytes:
    """AES-256-CBC with PKCS#7 padding: always 1 to 16 bytes longer."""
    pad = _BLOCK - len(plaintext) % _BLOCK
    return _Cbc(key, iv).encryptor().update(plaintext + bytes([pad]) * pad)


def aes256_cbc_decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    """Undo aes256_cbc_encrypt. Raises ValueError for padding that it does not make, so call it only
    after the MAC (padding oracle)."""
    if not ciphertext or len(ciphertext) % _BLOCK:
        raise ValueError("not whole blocks")
    padded = _Cbc(key, iv).decryptor().update(ciphertext)
    pad = padded[-1]
    if not 1 <= pad <= _BLOCK or padded[-pad:] != bytes([pad]) * pad:
        raise ValueError("bad padding")
    return padded[:-pad]


def x25519(private: bytes, public: bytes) -> bytes:
    """The shared secret of a 32-byte scalar and a u-coordinate, 32 bytes.

    Raises ValueError where the point has low order: the secret would be all zero.
    """
    try:
        return crypto_scalarmult(private, public)
    except RuntimeError:
        raise ValueError("point of low order") from None


def x25519_base(private: bytes) -> bytes:
    """The u-coordinate (32 bytes) of a 32-byte scalar."""
    return crypto_scalarmult_base(private)


def ed25519_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a 64-byte signature is right for a public key (32 bytes) and a message.

    An s at or above the group order never is. Keys of small order are for the caller to keep out.
    """
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def mlkem1024_encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh 32-byte secret and its ciphertext (1568 bytes) for a public key (1568 bytes).

    Draws from the library's own generator, which takes no randomness from outside. Raises
    ValueError for a key of another size or with coefficients out of range.
    """
    return MLKEM1024PublicKey.from_public_bytes(public).encapsulate()
