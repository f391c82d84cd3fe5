"""The authenticator: ties every key exchange to the session's start and to those before it.

    start(auth key)   root = mac = 0, then update(1, auth key)
    update(e, K)      root || mac = HKDF(root || K, "Authenticator Update" || e)

Its state is the 64 bytes root || mac. MACs are whole (32 bytes) and compared in constant time.
Knows no state of the machine and no chunk. Source: facts/spqr.md section 4.
"""

from __future__ import annotations

import hmac

from ..errors import InvalidMessage
from ..primitives import hkdf, mac

_LABEL = b"Signal_PQCKA_V1_MLKEM768:"
_ROOT, _MAC = slice(0, 32), slice(32, 64)
_FIRST_EPOCH = 1


def epoch_secret(shared: bytes, epoch: int) -> bytes:
    """What an epoch adds to authenticator and key chains, from ML-KEM's shared secret (32)."""
    return hkdf(None, shared, _LABEL + b"SCKA Key" + epoch.to_bytes(8, "big"), 32)


def start(auth_key: bytes) -> bytes:
    """The state at the start of a session, from its auth key (32 bytes)."""
    return update(bytes(64), _FIRST_EPOCH, auth_key)


def update(auth: bytes, epoch: int, secret: bytes) -> bytes:
    """The state after an epoch's secret. Epoch 1 comes twice: at the start and for itself."""
    info = _LABEL + b"Authenticator Update" + epoch.to_bytes(8, "big")
    return hkdf(None, auth[_ROOT] + secret, info, 64)


def header_mac(auth: bytes, epoch: int, header: bytes) -> bytes:
    """Over a key pair's header (64 bytes); made before the epoch's update."""
    return _mac(auth, b"ekheader", epoch, header)


def ciphertext_mac(auth: bytes, epoch: int, ciphertext: bytes) -> bytes:
    """Over both parts of a ciphertext (1088 bytes); made after the epoch's update."""
    return _mac(auth, b"ciphertext", epoch, ciphertext)


def check_header(auth: bytes, epoch: int, header: bytes, mac: bytes) -> None:
    """Raises InvalidMessage unless the MAC is right."""
    if not hmac.compare_digest(header_mac(auth, epoch, header), mac):
        raise InvalidMessage("key exchange header is not the peer's")


def check_ciphertext(auth: bytes, epoch: int, ciphertext: bytes, mac: bytes) -> None:
    """Raises InvalidMessage unless the MAC is right."""
    if not hmac.compare_digest(ciphertext_mac(auth, epoch, ciphertext), mac):
        raise InvalidMessage("key exchange ciphertext is not the peer's")


def _mac(auth: bytes, what: bytes, epoch: int, content: bytes) -> bytes:
    return mac(auth[_MAC], _LABEL + what + epoch.to_bytes(8, "big") + content)
