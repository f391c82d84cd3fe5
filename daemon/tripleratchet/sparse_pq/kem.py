"""ML-KEM-768 cut for travel: the header first, then the key, and the ciphertext in two parts.

    header  rho || H(ek)          ek vector  t, so that ek = t || rho (FIPS 203 order)
    ct1     u, needs the header   ct2        v, needs the ek vector

Every piece is a plain FIPS 203 value. Key pairs and decapsulation are the library's; it has no
half encapsulation, so that is done here. Knows no state and no MAC.
Source: facts/spqr.md section 5.
"""

from __future__ import annotations

from hashlib import sha3_256, sha3_512

import numpy as np
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from ..errors import InvalidMessage
from . import lattice
from .lattice import RANK, Q
from .limits import EK_SIZE

_RHO = slice(0, 32)
_HASH = slice(32, 64)


def key_pair(seed: bytes) -> tuple[bytes, bytes]:
    """Header (64 bytes) and ek vector (1152) of a 64-byte seed."""
    ek = MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    return ek[EK_SIZE:] + sha3_256(ek).digest(), ek[:EK_SIZE]


def first_header_chunk(seed: bytes) -> bytes:
    """The first 32 bytes of the header (rho) without making the key pair."""
    return sha3_512(seed[:32] + bytes((RANK,))).digest()[:32]


def decapsulate(seed: bytes, ciphertext: bytes) -> bytes:
    """The shared secret (32 bytes) of ct1 || ct2; a wrong ciphertext gives an unrelated one."""
    return MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)


def encapsulate(header: bytes, message: bytes) -> tuple[bytes, bytes]:
    """Phase 1: the shared secret (32 bytes) and ct1 (960), from 32 fresh random bytes."""
    shared, coins = _secrets(header, message)
    y = lattice.transform(lattice.noise(coins, 0, RANK))
    matrix = lattice.sample_transposed_matrix(header[_RHO])
    u = lattice.transform_back(lattice.inner_product(matrix, y))
    return shared, lattice.compress_10(lattice.reduce(u + lattice.noise(coins, RANK, RANK)))


def complete(header: bytes, message: bytes, ek_vector: bytes) -> bytes:
    """Phase 2: ct2 (128 bytes), from the same random bytes and the checked ek vector."""
    _, coins = _secrets(header, message)
    y = lattice.transform(lattice.noise(coins, 0, RANK))
    t = lattice.unpack_vector(ek_vector)
    v = lattice.transform_back(lattice.inner_product(t, y))[None]
    v = v + lattice.noise(coins, 2 * RANK, 1) + lattice.message_polynomial(message)
    return lattice.compress_4(lattice.reduce(v))


def check_ek(header: bytes, ek_vector: bytes) -> None:
    """Raises InvalidMessage unless the ek vector is the header's and in range (section 5.5)."""
    if sha3_256(ek_vector + header[_RHO]).digest() != header[_HASH]:
        raise InvalidMessage("encapsulation key is not the header's")
    if not bool(np.all(lattice.unpack_12(ek_vector) < Q)):
        raise InvalidMessage("encapsulation key out of range")


def _secrets(header: bytes, message: bytes) -> tuple[bytes, bytes]:
    both = sha3_512(message + header[_HASH]).digest()
    return both[:32], both[32:]
