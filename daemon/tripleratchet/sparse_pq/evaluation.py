"""Values of a polynomial over GF(2^16) on 64 neighbouring points at once.

With s_k the polynomial that is zero on the points 0..2^k - 1, and e_k = s_k / s_k(2^k), the
products of the e_k are a basis in which 64 values cost six steps of 32 multiplications instead of
a sum for each of them (an additive transform: S.-J. Lin, W.-H. Chung, Y. S. Han, FOCS 2014). e_k
is linear, and the same on each run of 2^k points, so one step is

    f(x) = low(x) + e_k(x) high(x)        f(x + 2^k) = f(x) + high(x)

Everything is public: values are chunks, and chunks travel in the clear. Knows no chunk's bytes.
Source: facts/spqr.md section 6.1 for the field.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from .field import BITS, ORDER, tables

POINTS = 64
"""Points of one transform; a power of two, and at least the degrees there are."""

_LEVELS = POINTS.bit_length() - 1
Words = NDArray[np.uint16]


def coefficients(values: Words) -> Words:
    """In the basis, from the values on the points 0..63: a row for each, a column for each
    polynomial."""
    found = values.copy()
    for level in range(_LEVELS):
        low, high = _halves(found, level)
        high ^= low
        low ^= _product(_factors(level, 0), high)
    return found


def values(coefficients: Words, block: int) -> Words:
    """On the points 64·block to 64·block + 63."""
    found = coefficients.copy()
    for level in reversed(range(_LEVELS)):
        low, high = _halves(found, level)
        low ^= _product(_factors(level, block), high)
        high ^= low
    return found


def _halves(rows: Words, level: int) -> tuple[Words, Words]:
    """The rows of each run of 2^(level + 1), cut in two; both are views."""
    runs = rows.reshape(-1, 2, 1 << level, rows.shape[1])
    return runs[:, 0], runs[:, 1]


def _product(log_factors: NDArray[np.intp], rows: Words) -> Words:
    log, exp = tables()
    product: Words = exp.take(log.take(rows) + log_factors, mode="clip")
    return product


def _factors(level: int, block: int) -> NDArray[np.intp]:
    """Logarithms of e_level at the beginning of each of the block's runs."""
    runs = POINTS >> level + 1
    return _subspace_logs()[level][block * runs : (block + 1) * runs, None, None]


@cache
def _subspace_logs() -> tuple[NDArray[np.intp], ...]:
    """Logarithms of e_level at every multiple of 2^(level + 1), for each level (0.5 MB)."""
    log = tables().log
    at_bits = np.left_shift(1, np.arange(BITS)).astype(np.uint16)  # s_0 is x, at each power of two
    found = []
    for level in range(_LEVELS):
        one = at_bits[level]
        normal = _quotient(at_bits, one)
        spread = np.zeros(1, np.uint16)
        for bit in range(level + 1, BITS):  # linear: the value of a sum is the sum of values
            spread = np.concatenate((spread, spread ^ normal[bit]))
        found.append(log.take(spread))
        at_bits = _times(at_bits, at_bits) ^ _times(at_bits, one)  # s' = s² + s(2^level)·s
    return tuple(found)


def _times(one: Words, other: Words | np.uint16) -> Words:
    log, exp = tables()
    product: Words = exp.take(log.take(one) + log.take(other), mode="clip")
    return product


def _quotient(one: Words, divisor: np.uint16) -> Words:
    log, exp = tables()
    quotient: Words = exp.take(log.take(one) + (ORDER - log.take(divisor)), mode="clip")
    return quotient
