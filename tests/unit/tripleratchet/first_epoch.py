"""The post-quantum ratchet as far as its first epoch goes: a hash chain for each direction.

A stand-in for vectors whose sender never leaves that epoch. It checks that the seam carries what a
post-quantum ratchet needs: a start key, bytes out and in, a salt, a state that is dropped on
failure and survives storage. Source: facts/spqr.md sections 1.3, 2.1, 7.1, 7.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from tripleratchet import InvalidMessage, Random
from tripleratchet.post_quantum import PostQuantum


def _hkdf(ikm: bytes, info: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, None, info).derive(ikm)


@dataclass(frozen=True, repr=False)
class FirstEpoch:
    receiving: bytes
    used: frozenset[int] = frozenset()

    def send(self, random: Random) -> tuple[PostQuantum, bytes, bytes | None]:
        raise NotImplementedError("the vectors' responder only receives")

    def receive(self, wire: bytes) -> tuple[PostQuantum, bytes | None]:
        if len(wire) < 4 or wire[:2] != b"\x01\x01":
            raise InvalidMessage("not a message of the first epoch")
        index, key, following = wire[2], b"", self.receiving
        if index in self.used:
            raise InvalidMessage("key already requested")
        for counter in range(1, index + 1):
            info = counter.to_bytes(4, "big") + b"Signal PQ Ratchet V1 Chain Next"
            okm = _hkdf(following, info, 64)
            following, key = okm[:32], okm[32:]
        return FirstEpoch(self.receiving, self.used | {index}), key

    def to_bytes(self) -> bytes:
        return self.receiving + bytes(sorted(self.used))


def start(auth_key: bytes, *, initiator: bool, max_jump: int) -> PostQuantum:
    okm = _hkdf(auth_key, b"Signal PQ Ratchet V1 Chain  Start", 96)
    return FirstEpoch(okm[64:] if initiator else okm[32:64])


def restore(stored: bytes) -> PostQuantum:
    return FirstEpoch(stored[:32], frozenset(stored[32:]))
