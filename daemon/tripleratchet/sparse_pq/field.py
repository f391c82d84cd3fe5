"""GF(2^16) as logarithm tables: the field the erasure code works in.

Polynomial x^16 + x^12 + x^3 + x + 1, generator 2; addition is XOR. Look-ups depend on their
operands, which is right here and nowhere else: chunks travel in the clear. Knows no chunk.
Source: facts/spqr.md section 6.1.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS = 16
POLYNOMIAL = 0x1100B
ORDER = 0xFFFF
"""How many elements are not zero; logarithms count modulo this."""

LOG_OF_ZERO = 2 * ORDER
"""Any logarithm added to it lands where `exp` holds zeros, so that zero needs no masking."""


class Tables(NamedTuple):
    """`log[a]` to base 2 for every element; `exp[s]` for a sum of two logarithms."""

    log: NDArray[np.intp]
    exp: NDArray[np.uint16]


@cache
def tables() -> Tables:
    """Made on first use (some milliseconds), not at import: many processes never need them."""
    powers, power = [], 1
    for _ in range(ORDER):
        powers.append(power)
        power <<= 1
        if power > ORDER:
            power ^= POLYNOMIAL
    once = np.array(powers, np.uint16)
    log = np.full(ORDER + 1, LOG_OF_ZERO, np.intp)
    log[once] = np.arange(ORDER, dtype=np.intp)
    exp = np.zeros(LOG_OF_ZERO + ORDER, np.uint16)
    exp[:ORDER] = exp[ORDER:LOG_OF_ZERO] = once
    return Tables(log, exp)
