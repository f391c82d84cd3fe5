"""ML-KEM-768 arithmetic on NumPy arrays: polynomials, their transform, noise, compression.

Secrets pass through here, so nothing depends on them but values: no branch, no index, no division
(reduction and compression multiply and shift; KyberSlash took keys through a division). The
exceptions work on public input alone: the matrix is sampled from rho, and keys are unpacked.
A polynomial vector is an int64 array of shape (k, 2, 128): polynomial, even or odd, coefficient
pair; the long axis last, because NumPy's inner loop runs along it. Knows no key exchange.
Source: facts/spqr.md section 5; FIPS 203.
"""

from __future__ import annotations

from functools import cache
from hashlib import shake_128, shake_256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Q = 3329
RANK = 3
PAIRS = 128
_SIZE = 256
_ZETA = 17
_HALF, _ONE = Q // 2, (Q + 1) // 2  # what rounds, and what stands for a bit that is set
_RECIPROCAL = 1_290_168  # of q, times 2^32 and rounded up: exact for what compression divides
_POLYNOMIAL_BYTES = 128  # of a PRF output, and of 4-bit coefficients
_SHAKE128_BLOCK = 168
_FIRST_BYTES = 4 * _SHAKE128_BLOCK  # 448 candidates for 256 places: nearly always enough

Vector = NDArray[np.int64]


class _Constants(NamedTuple):
    forward: NDArray[np.float64]
    backward: NDArray[np.float64]
    gamma: Vector


@cache
def _constants() -> _Constants:
    """The incomplete transform as a 128 by 128 matrix, its inverse, and the moduli X² - gamma."""
    gammas = [pow(_ZETA, 2 * int(f"{i:07b}"[::-1], 2) + 1, Q) for i in range(PAIRS)]
    forward = [[pow(gamma, j, Q) for j in range(PAIRS)] for gamma in gammas]
    scale = pow(PAIRS, -1, Q)
    inverses = [pow(gamma, -1, Q) for gamma in gammas]
    backward = [[scale * pow(inverse, j, Q) % Q for inverse in inverses] for j in range(PAIRS)]
    return _Constants(
        np.array(forward, np.float64).T,
        np.array(backward, np.float64).T,
        np.array(gammas, np.int64),
    )


def reduce(values: Vector) -> Vector:
    """Values of 0 to 2^31 modulo q, by multiplication and shift."""
    # floor(2^33 / q): the quotient comes out right or one too small.
    left = values - (values * 2_580_334 >> 33) * Q - Q
    reduced: Vector = left + (left >> 63 & Q)
    return reduced


def transform(vector: Vector) -> Vector:
    """NTT of every polynomial."""
    return _matrix_product(_constants().forward, vector)


def transform_back(vector: Vector) -> Vector:
    """Inverse NTT of every polynomial."""
    return _matrix_product(_constants().backward, vector)


def _matrix_product(matrix: NDArray[np.float64], vector: Vector) -> Vector:
    # Exact in doubles: sums stay below 128·q² < 2^31.
    product = vector.reshape(-1, PAIRS).astype(np.float64) @ matrix
    return reduce(product.astype(np.int64)).reshape(vector.shape)


def inner_product(left: Vector, right: Vector) -> Vector:
    """Sum over the last three polynomials of products modulo X² - gamma (transformed values)."""
    # Sums of three products stay below 2^31, so one reduction for each is enough.
    squares = _sum_of_three(left * right)
    crossed = _sum_of_three(left * right[..., ::-1, :])
    even = squares[..., 0, :] + reduce(squares[..., 1, :]) * _constants().gamma
    odd = crossed[..., 0, :] + crossed[..., 1, :]
    return reduce(np.stack((even, odd), axis=-2))


def _sum_of_three(products: Vector) -> Vector:
    total: Vector = products[..., 0, :, :] + products[..., 1, :, :] + products[..., 2, :, :]
    return total


def sample_transposed_matrix(rho: bytes) -> Vector:
    """The transposed public matrix, transformed: shape (row, column, 2, 128)."""
    # A[row][column] comes from rho || column || row; the transpose swaps the two.
    seeds = [rho + bytes((i, j)) for i in range(RANK) for j in range(RANK)]
    stream = b"".join(shake_128(seed).digest(_FIRST_BYTES) for seed in seeds)
    candidates = unpack_12(stream).reshape(len(seeds), -1)
    taken = [_first_below_q(row, seed) for row, seed in zip(candidates, seeds, strict=True)]
    matrix = np.concatenate(taken).reshape(RANK, RANK, PAIRS, 2)
    return np.ascontiguousarray(matrix.transpose(0, 1, 3, 2))


def _first_below_q(candidates: Vector, seed: bytes) -> Vector:
    taken, size = candidates[candidates < Q], _FIRST_BYTES
    while len(taken) < _SIZE:
        size += _SHAKE128_BLOCK
        longer = unpack_12(shake_128(seed).digest(size))
        taken = longer[longer < Q]
    return taken[:_SIZE]


def unpack_12(data: bytes) -> Vector:
    """12-bit numbers from bytes, low bits first."""
    triples = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int64)
    low, middle, high = triples[:, 0], triples[:, 1], triples[:, 2]
    pairs = np.stack((low | (middle & 15) << 8, middle >> 4 | high << 4), axis=-1)
    return pairs.reshape(-1)


def unpack_vector(data: bytes) -> Vector:
    """The polynomial vector of an encapsulation key (1152 bytes), coefficients as they come."""
    return np.ascontiguousarray(unpack_12(data).reshape(RANK, PAIRS, 2).transpose(0, 2, 1))


def noise(coins: bytes, first: int, count: int) -> Vector:
    """Small polynomials from 32 secret bytes: centred binomial, numbers first to first+count."""
    stream = b"".join(
        shake_256(coins + bytes((number,))).digest(_POLYNOMIAL_BYTES)
        for number in range(first, first + count)
    )
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")
    fours = bits.reshape(count, PAIRS, 2, 4).astype(np.int64)
    values = fours[..., 0] + fours[..., 1] - fours[..., 2] - fours[..., 3]
    return np.ascontiguousarray((values + Q).transpose(0, 2, 1))


def message_polynomial(message: bytes) -> Vector:
    """Each of 256 secret bits times (q + 1) / 2."""
    bits = np.unpackbits(np.frombuffer(message, np.uint8), bitorder="little")
    return bits.reshape(PAIRS, 2).T.astype(np.int64) * _ONE


def compress_10(vector: Vector) -> bytes:
    """Rounded to 10 bits and packed: 320 bytes a polynomial."""
    return _pack(((vector << 10) + _HALF) * _RECIPROCAL >> 32, 10)


def compress_4(vector: Vector) -> bytes:
    """Rounded to 4 bits and packed: 128 bytes a polynomial."""
    return _pack(((vector << 4) + _HALF) * _RECIPROCAL >> 32, 4)


def _pack(values: Vector, bits: int) -> bytes:
    ordered = values.transpose(0, 2, 1).reshape(-1, 1).astype("<u2")
    each = np.unpackbits(ordered.view(np.uint8), axis=1, count=bits, bitorder="little")
    return np.packbits(each, bitorder="little").tobytes()
