"""X25519 keys as they travel: encodings, generation, agreement, and the canonical-point test.

Private scalars stay bytes and go only into compiled code. This module knows no
protocol. Source: facts/signal-session.md sections 1 and 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import BadKeyLength, BadKeyType, InvalidKeyAgreement, NoKeyTypeIdentifier
from .primitives import x25519, x25519_base

Random = Callable[[int], bytes]
"""Gives that many fresh, secret, uniformly random bytes."""

PRIVATE_KEY_SIZE = 32
PUBLIC_KEY_SIZE = 33
EC_TYPE = 0x05
_EC_PREFIX = b"\x05"
_FIELD_PRIME = 2**255 - 19
_GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
# 5·L-1 is a multiple of 8 between 2^254 and 2^255, so clamping leaves it alone, and it is -1
# modulo the group order: multiplying by it returns u exactly for points of the prime-order group.
_SUBGROUP_PROBE = (5 * _GROUP_ORDER - 1).to_bytes(32, "little")


def hidden(state: object) -> str:
    """The repr of a secret-bearing tuple: its kind, never its content."""
    return f"<{type(state).__name__}>"


def parse_public(data: bytes) -> bytes:
    """The 33 bytes of a serialized EC public key; trailing bytes are ignored, as peers do.

    Raises NoKeyTypeIdentifier, BadKeyType or BadKeyLength.
    """
    if not data:
        raise NoKeyTypeIdentifier("empty public key")
    if data[0] != EC_TYPE:
        raise BadKeyType("public key type is not 05")
    if len(data) < PUBLIC_KEY_SIZE:
        raise BadKeyLength(f"public key has fewer than {PUBLIC_KEY_SIZE} bytes")
    return data if len(data) == PUBLIC_KEY_SIZE else data[:PUBLIC_KEY_SIZE]


def clamp(private: bytes) -> bytes:
    """The 32-byte scalar in the form it is stored and signed with. Raises BadKeyLength."""
    if len(private) != PRIVATE_KEY_SIZE:
        raise BadKeyLength(f"private key is not {PRIVATE_KEY_SIZE} bytes")
    first, last = private[0] & 0xF8, private[31] & 0x7F | 0x40
    return bytes([first]) + private[1:31] + bytes([last])


def generate(random: Random) -> tuple[bytes, bytes]:
    """A fresh key pair: clamped private scalar (32 bytes), serialized public key (33)."""
    private = clamp(random(PRIVATE_KEY_SIZE))
    return private, public_of(private)


def public_of(private: bytes) -> bytes:
    """The serialized public key (33 bytes) of a private scalar."""
    return _EC_PREFIX + x25519_base(private)


def agree(private: bytes, public: bytes) -> bytes:
    """The 32-byte X25519 secret with a serialized public key.

    Raises InvalidKeyAgreement where the point has low order: the secret would be all zero.
    """
    try:
        return x25519(private, public[1:])
    except ValueError:
        raise InvalidKeyAgreement("public key of low order") from None


def is_canonical(public: bytes) -> bool:
    """Whether a key is the one encoding of a point of the prime-order group (section 6).

    A base key identifies its session; a second encoding of it would start a second session.
    """
    u = public[1:]
    if int.from_bytes(u, "little") >= _FIELD_PRIME:
        return False
    try:
        return agree(_SUBGROUP_PROBE, public) == u
    except InvalidKeyAgreement:
        return False


@dataclass(frozen=True, slots=True)
class IdentityKeyPair:
    """The long-lived key of an account: agrees on secrets and signs pre-keys."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def generate(cls, random: Random) -> IdentityKeyPair:
        """A fresh identity."""
        return cls(*generate(random))

    @classmethod
    def from_private(cls, private: bytes) -> IdentityKeyPair:
        """The identity of a stored 32-byte private key. Raises BadKeyLength."""
        scalar = clamp(private)
        return cls(scalar, public_of(scalar))
