"""Kyber1024 (key type 08) on top of a FIPS 203 ML-KEM-1024.

Round-3 Kyber hashes the shared secret once more together with the ciphertext; everything else is
equal for honest inputs. Private keys are 64-byte seeds. This module knows no pre-key and no
session. Source: facts/signal-session.md section 3.
"""

from __future__ import annotations

from hashlib import sha3_256, shake_256

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM1024PrivateKey

from .errors import (
    BadKEMCiphertextLength,
    BadKEMKeyLength,
    BadKEMKeyType,
    InvalidKeyAgreement,
    NoKeyTypeIdentifier,
)
from .primitives import mlkem1024_encapsulate

KYBER_TYPE = 0x08
SEED_SIZE = 64
PUBLIC_KEY_SIZE = 1569
CIPHERTEXT_SIZE = 1569
_PREFIX = b"\x08"


def parse_public(data: bytes) -> bytes:
    """The 1569 bytes of a serialized public key, checked for type and length only."""
    _check_type(data)
    if len(data) != PUBLIC_KEY_SIZE:
        raise BadKEMKeyLength(f"KEM public key is not {PUBLIC_KEY_SIZE} bytes")
    return data


def public_of(seed: bytes) -> bytes:
    """The serialized public key of a 64-byte seed. Raises BadKEMKeyLength."""
    return _PREFIX + _private_key(seed).public_key().public_bytes_raw()


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """A fresh 32-byte secret and its serialized ciphertext (1569 bytes).

    Draws from the library's own generator, which takes no randomness from outside. Raises
    InvalidKeyAgreement for a key with coefficients out of range (a malicious bundle).
    """
    try:
        shared, ciphertext = mlkem1024_encapsulate(public[1:])
    except ValueError:
        raise InvalidKeyAgreement("KEM public key out of range") from None
    return round3_secret(shared, ciphertext), _PREFIX + ciphertext


def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    """The 32-byte secret of a serialized ciphertext; a damaged one gives an unrelated secret.

    Raises NoKeyTypeIdentifier, BadKEMKeyType or BadKEMCiphertextLength.
    """
    _check_type(ciphertext)
    if len(ciphertext) != CIPHERTEXT_SIZE:
        raise BadKEMCiphertextLength(f"KEM ciphertext is not {CIPHERTEXT_SIZE} bytes")
    raw = ciphertext[1:]
    return round3_secret(_private_key(seed).decapsulate(raw), raw)


def round3_secret(mlkem_secret: bytes, ciphertext: bytes) -> bytes:
    """What round-3 Kyber calls the secret, from ML-KEM's, and the ciphertext without its type."""
    return shake_256(mlkem_secret + sha3_256(ciphertext).digest()).digest(32)


def _private_key(seed: bytes) -> MLKEM1024PrivateKey:
    if len(seed) != SEED_SIZE:
        raise BadKEMKeyLength(f"KEM seed is not {SEED_SIZE} bytes")
    return MLKEM1024PrivateKey.from_seed_bytes(seed)


def _check_type(data: bytes) -> None:
    if not data:
        raise NoKeyTypeIdentifier("empty KEM key or ciphertext")
    if data[0] != KYBER_TYPE:
        raise BadKEMKeyType("KEM type is not 08")
