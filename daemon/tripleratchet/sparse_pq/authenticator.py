"""The authenticator: ties every key exchange to the session's start and to those before it.

    init(auth key)  root = mac = 0, then update(1, auth key)
    update(e, K)    root, mac = HKDF(root || K, "Authenticator Update" || e)

Its MACs are whole (32 bytes) and compared in constant time. Knows no state and no chunk.
Source: facts/spqr.md section 4.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import InvalidMessage
from ..keys import hidden

_SHA256 = SHA256()
_LABEL = b"Signal_PQCKA_V1_MLKEM768:"
_FIRST_EPOCH = 1


def epoch_secret(shared: bytes, epoch: int) -> bytes:
    """What an epoch adds to authenticator and key chains, from ML-KEM's shared secret (32)."""
    info = _LABEL + b"SCKA Key" + epoch.to_bytes(8, "big")
    return HKDF(_SHA256, 32, None, info).derive(shared)


class Authenticator(NamedTuple):
    """Root key and MAC key, 32 bytes each."""

    root: bytes
    mac: bytes

    def __repr__(self) -> str:
        return hidden(self)

    @classmethod
    def start(cls, auth_key: bytes) -> Authenticator:
        """The state at the start of a session."""
        return cls(bytes(32), bytes(32)).update(_FIRST_EPOCH, auth_key)

    def update(self, epoch: int, secret: bytes) -> Authenticator:
        """The state after an epoch's secret. Epoch 1 comes twice: at the start and for itself."""
        info = _LABEL + b"Authenticator Update" + epoch.to_bytes(8, "big")
        okm = HKDF(_SHA256, 64, None, info).derive(self.root + secret)
        return Authenticator(okm[:32], okm[32:])

    def header_mac(self, epoch: int, header: bytes) -> bytes:
        """Over a key pair's header (64 bytes); made before the epoch's update."""
        return self._mac(b"ekheader", epoch, header)

    def ciphertext_mac(self, epoch: int, ciphertext: bytes) -> bytes:
        """Over both parts of a ciphertext (1088 bytes); made after the epoch's update."""
        return self._mac(b"ciphertext", epoch, ciphertext)

    def check_header(self, epoch: int, header: bytes, mac: bytes) -> None:
        """Raises InvalidMessage unless the MAC is right."""
        if not hmac.compare_digest(self.header_mac(epoch, header), mac):
            raise InvalidMessage("key exchange header is not the peer's")

    def check_ciphertext(self, epoch: int, ciphertext: bytes, mac: bytes) -> None:
        """Raises InvalidMessage unless the MAC is right."""
        if not hmac.compare_digest(self.ciphertext_mac(epoch, ciphertext), mac):
            raise InvalidMessage("key exchange ciphertext is not the peer's")

    def _mac(self, what: bytes, epoch: int, content: bytes) -> bytes:
        message = _LABEL + what + epoch.to_bytes(8, "big") + content
        return hmac.digest(self.mac, message, "sha256")
