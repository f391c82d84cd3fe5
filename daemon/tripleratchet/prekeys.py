"""Pre-keys: made ahead by their owner, handed out in bundles, found again by id.

This module makes and describes them; it keeps none, and knows no session.
Source: facts/signal-session.md section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from . import keys, kyber, xeddsa
from .keys import IdentityKeyPair, Random


@dataclass(frozen=True, slots=True)
class PreKey:
    """A one-time EC pre-key: private scalar (32 bytes), public key (33)."""

    id: int
    private: bytes = field(repr=False)
    public: bytes = field(repr=False)

    @classmethod
    def from_private(cls, id: int, private: bytes) -> PreKey:  # noqa: A002 -- the wire's word
        """The pre-key of stored private bytes. Raises BadKeyLength."""
        scalar = keys.clamp(private)
        return cls(id, scalar, keys.public_of(scalar))

    def to_private_bytes(self) -> bytes:
        """The 32 bytes to store, sealed."""
        return self.private


@dataclass(frozen=True, slots=True)
class SignedPreKey:
    """An EC pre-key signed by the identity (64-byte XEdDSA over the 33 public bytes)."""

    id: int
    private: bytes = field(repr=False)
    public: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def from_private(cls, id: int, private: bytes, signature: bytes) -> SignedPreKey:  # noqa: A002
        """The pre-key of stored private bytes and signature. Raises BadKeyLength."""
        scalar = keys.clamp(private)
        return cls(id, scalar, keys.public_of(scalar), signature)

    def to_private_bytes(self) -> bytes:
        """The 32 bytes to store, sealed."""
        return self.private


@dataclass(frozen=True, slots=True)
class KyberPreKey:
    """A signed Kyber1024 pre-key: 64-byte seed, 1569-byte public key, 64-byte signature.

    One-time and last-resort keys look alike; only their owner knows which is which.
    """

    id: int
    seed: bytes = field(repr=False)
    public: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def from_private(cls, id: int, seed: bytes, signature: bytes) -> KyberPreKey:  # noqa: A002
        """The pre-key of a stored seed and signature. Raises BadKEMKeyLength."""
        return cls(id, seed, kyber.public_of(seed), signature)

    def to_private_bytes(self) -> bytes:
        """The 64-byte seed to store, sealed."""
        return self.seed


def generate_pre_key(id: int, random: Random) -> PreKey:  # noqa: A002
    """A fresh one-time EC pre-key."""
    return PreKey(id, *keys.generate(random))


def generate_signed_pre_key(
    identity: IdentityKeyPair,
    id: int,  # noqa: A002
    random: Random,
) -> SignedPreKey:
    """A fresh EC pre-key signed by `identity`."""
    private, public = keys.generate(random)
    return SignedPreKey(id, private, public, xeddsa.sign(identity.private, public, random))


def generate_kyber_pre_key(
    identity: IdentityKeyPair,
    id: int,  # noqa: A002
    random: Random,
) -> KyberPreKey:
    """A fresh Kyber1024 pre-key signed by `identity`."""
    seed = random(kyber.SEED_SIZE)
    public = kyber.public_of(seed)
    return KyberPreKey(id, seed, public, xeddsa.sign(identity.private, public, random))


@dataclass(frozen=True, slots=True)
class PreKeyBundle:
    """What a sender fetches to open a session with one device. Nothing in it is trusted yet."""

    registration_id: int
    device_id: int
    identity_key: bytes = field(repr=False)
    signed_pre_key_id: int
    signed_pre_key: bytes = field(repr=False)
    signed_pre_key_signature: bytes = field(repr=False)
    kyber_pre_key_id: int
    kyber_pre_key: bytes = field(repr=False)
    kyber_pre_key_signature: bytes = field(repr=False)
    pre_key_id: int | None = None
    pre_key: bytes | None = field(default=None, repr=False)


class PreKeys(Protocol):
    """The owner's private pre-keys, looked up by id, one id space per kind."""

    def signed_pre_key(self, id: int, /) -> SignedPreKey:  # noqa: A002
        """Raises InvalidSignedPreKeyId where there is none."""
        ...

    def kyber_pre_key(self, id: int, /) -> KyberPreKey:  # noqa: A002
        """Raises InvalidKyberPreKeyId where there is none."""
        ...

    def pre_key(self, id: int, /) -> PreKey:  # noqa: A002
        """Raises InvalidPreKeyId where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class NeededPreKeys:
    """The ids a pre-key message will look up."""

    signed_pre_key_id: int
    kyber_pre_key_id: int
    pre_key_id: int | None


@dataclass(frozen=True, slots=True)
class UsedPreKeys:
    """The ids a new session was made from, for the owner's books.

    Delete the one-time keys; for a last-resort Kyber key remember (kyber id, signed id, base key)
    and refuse a repeat with InvalidMessage: it is a replay that outlived its session.
    """

    pre_key_id: int | None
    signed_pre_key_id: int
    kyber_pre_key_id: int
    base_key: bytes = field(repr=False)
