"""What messages and handshakes are made of: hashes, a block cipher, the curves, and a KEM.

The compiled ones where the package tripleratchet-native is installed, else those of portable.py,
which documents them; both give the same bytes and errors (tests/property/test_primitives.py). A
compiled package that does not fit is an ImportError, not a reason to go on without it.
"""

from __future__ import annotations

try:
    from tripleratchet_native import (
        aes256_cbc_decrypt,
        aes256_cbc_encrypt,
        ed25519_verify,
        hkdf,
        hkdf_pair,
        mac,
        mac_pair,
        mlkem1024_encapsulate,
        x25519,
        x25519_base,
    )

    PRIMITIVES = "native"
except ModuleNotFoundError as error:
    if error.name != "tripleratchet_native":
        raise  # it is there, and a part of it is not
    from .portable import (
        aes256_cbc_decrypt,
        aes256_cbc_encrypt,
        ed25519_verify,
        hkdf,
        hkdf_pair,
        mac,
        mac_pair,
        mlkem1024_encapsulate,
        x25519,
        x25519_base,
    )

    PRIMITIVES = "portable"

__all__ = [
    "PRIMITIVES",
    "aes256_cbc_decrypt",
    "aes256_cbc_encrypt",
    "ed25519_verify",
    "hkdf",
    "hkdf_pair",
    "mac",
    "mac_pair",
    "mlkem1024_encapsulate",
    "x25519",
    "x25519_base",
]
