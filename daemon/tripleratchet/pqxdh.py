"""PQXDH: from a bundle or a first message to the secrets a session starts with.

Pure key agreement: knows no message, no session record and no trust decision.
Source: facts/signal-session.md section 6.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import keys, kyber
from .keys import Random
from .prekeys import KyberPreKey, PreKey, SignedPreKey
from .primitives import hkdf

_INFO = b"WhisperText_X25519_SHA-256_CRYSTALS-KYBER-1024"
_PREFIX = b"\xff" * 32


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Secrets:
    """What both sides derive: root key, chain key, post-quantum auth key, 32 bytes each."""

    root_key: bytes
    chain_key: bytes
    auth_key: bytes


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Offer:
    """The initiator's side: secrets, the base key (33) and KEM ciphertext (1569) to send."""

    secrets: Secrets
    base_key: bytes
    kyber_ciphertext: bytes


def initiate(
    identity_private: bytes,
    *,
    identity_key: bytes,
    signed_pre_key: bytes,
    pre_key: bytes | None,
    kyber_pre_key: bytes,
    random: Random,
) -> Offer:
    """Agree with a peer's verified public keys. Raises InvalidKeyAgreement."""
    base_private, base_key = keys.generate(random)
    dhs = [
        keys.agree(identity_private, signed_pre_key),
        keys.agree(base_private, identity_key),
        keys.agree(base_private, signed_pre_key),
    ]
    if pre_key is not None:
        dhs.append(keys.agree(base_private, pre_key))
    shared, ciphertext = kyber.encapsulate(kyber_pre_key)
    return Offer(derive(dhs, shared), base_key, ciphertext)


def respond(
    identity_private: bytes,
    *,
    identity_key: bytes,
    base_key: bytes,
    kyber_ciphertext: bytes,
    signed_pre_key: SignedPreKey,
    pre_key: PreKey | None,
    kyber_pre_key: KyberPreKey,
) -> Secrets:
    """Agree with an initiator's public values; the caller has checked that base_key is canonical.

    Raises InvalidKeyAgreement or, for a malformed ciphertext, an EncodingError.
    """
    dhs = [
        keys.agree(signed_pre_key.private, identity_key),
        keys.agree(identity_private, base_key),
        keys.agree(signed_pre_key.private, base_key),
    ]
    if pre_key is not None:
        dhs.append(keys.agree(pre_key.private, base_key))
    return derive(dhs, kyber.decapsulate(kyber_pre_key.seed, kyber_ciphertext))


def derive(dhs: list[bytes], kyber_secret: bytes) -> Secrets:
    """The key schedule: Diffie-Hellman outputs in the order of section 6, then the KEM secret."""
    secret = b"".join((_PREFIX, *dhs, kyber_secret))
    okm = hkdf(None, secret, _INFO, 96)
    return Secrets(okm[:32], okm[32:64], okm[64:])
