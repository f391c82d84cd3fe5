"""The erasure code: a message as 65,536 chunks, any N of which give it back.

    message    N·32 bytes = N·16 words; word 16·i + j is f_j(i), f_j a polynomial of degree < N
    chunk x    f_0(x) .. f_15(x): below N a slice of the message, from N on parity

Everything here is public: chunks travel in the clear. It has no integrity check of its own; what
comes out is authenticated by the caller. Source: facts/spqr.md section 6.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import evaluation
from .field import ORDER, tables
from .limits import CHUNK_SIZE, MAX_CHUNK_INDEX

_KEPT = 1_024
"""Messages whose parity chunks are kept at hand, 5 kB of public bytes each: the conversations of a
process that send in one direction now."""

_BIG_ENDIAN = np.dtype(">u2")


def chunk(message: bytes, counter: int) -> bytes:
    """The chunk a sender's counter stands for (32 bytes); the index is its low 16 bits."""
    start = (counter & MAX_CHUNK_INDEX) * CHUNK_SIZE
    if start < len(message):
        return message[start : start + CHUNK_SIZE]
    return encoder(message).chunk(counter)


class Chunks(NamedTuple):
    """Received chunks of one message, in the order of their indexes.

    `systematic` has a bit for each index below N that is here, `parity` the other indexes.
    """

    systematic: int = 0
    parity: tuple[int, ...] = ()
    data: bytes = b""

    def __repr__(self) -> str:
        return f"<{len(self)} chunks>"

    def __len__(self) -> int:
        return len(self.data) // CHUNK_SIZE

    def add(self, index: int, data: bytes, needed: int) -> Chunks:
        """With one more chunk; a repeated index replaces the older data (section 6.4)."""
        systematic, parity = self.systematic, self.parity
        if index < needed:
            bit = 1 << index
            place, held = (systematic & (bit - 1)).bit_count(), bool(systematic & bit)
            systematic |= bit
        else:
            among = bisect_left(parity, index)
            place, held = systematic.bit_count() + among, index in parity[among : among + 1]
            if not held:
                parity = (*parity[:among], index, *parity[among:])
        start = place * CHUNK_SIZE
        rest = self.data[start + CHUNK_SIZE if held else start :]
        return Chunks(systematic, parity, self.data[:start] + data + rest)

    def message(self, needed: int) -> bytes | None:
        """The message of `needed`·32 bytes, or None while chunks are missing."""
        if len(self.data) < needed * CHUNK_SIZE:
            return None
        if not self.parity:
            return self.data
        here = [index for index in range(needed) if self.systematic >> index & 1]
        missing = [index for index in range(needed) if not self.systematic >> index & 1]
        weights = _log_weights((*here, *self.parity), missing)
        found = _combine(weights, self.data)
        pieces = dict(zip(here, _cut(self.data), strict=False))
        pieces.update(zip(missing, _cut(found), strict=True))
        return b"".join(pieces[index] for index in range(needed))


class Encoder:
    """The chunks of one message. The first of parity is made by itself, since many a conversation
    asks for one and rests; from the second on, blocks of 64 are."""

    __slots__ = ("_asked", "_coefficients", "_held", "_message")

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._coefficients: NDArray[np.uint16] | None = None
        self._asked = False
        self._held = (-1, b"")  # a block's number and chunks, in one for the sake of threads

    def chunk(self, counter: int) -> bytes:
        """The chunk a sender's counter stands for (32 bytes); the index is its low 16 bits."""
        index = counter & MAX_CHUNK_INDEX
        start = index * CHUNK_SIZE
        if start < len(self._message):
            return self._message[start : start + CHUNK_SIZE]
        block, place = divmod(index, evaluation.POINTS)
        held, chunks = self._held
        if held != block:
            if not self._asked:
                self._asked = True
                return _interpolated(self._message, (index,))
            chunks = self._values(block)
            self._held = block, chunks
        return chunks[place * CHUNK_SIZE : (place + 1) * CHUNK_SIZE]

    def _values(self, block: int) -> bytes:
        if self._coefficients is None:
            held = len(self._message) // CHUNK_SIZE
            first = self._message + _interpolated(self._message, range(held, evaluation.POINTS))
            words = np.frombuffer(first, _BIG_ENDIAN).reshape(evaluation.POINTS, -1)
            self._coefficients = evaluation.coefficients(words.astype(np.uint16))
        return evaluation.values(self._coefficients, block).astype(_BIG_ENDIAN).tobytes()


encoder = lru_cache(_KEPT)(Encoder)
"""The one encoder of a message."""


def _interpolated(message: bytes, points: Sequence[int]) -> bytes:
    """The chunks at these points beyond the message's own."""
    return _combine(_log_weights(range(len(message) // CHUNK_SIZE), points), message)


def _log_weights(nodes: Sequence[int], points: Sequence[int]) -> NDArray[np.intp]:
    """Logarithms of the Lagrange weights: a row for each node, a column for each point."""
    log = tables().log
    at = np.array(nodes, np.intp)
    own = log[at[:, None] ^ at]
    np.fill_diagonal(own, 0)
    apart = log[at[:, None] ^ np.array(points, np.intp)]
    weights: NDArray[np.intp] = (apart.sum(axis=0) - apart - own.sum(axis=0)[:, None]) % ORDER
    return weights


def _combine(log_weights: NDArray[np.intp], chunks: bytes) -> bytes:
    """The weighted sums of chunks: 32 bytes for each column of weights."""
    log, exp = tables()
    words = log.take(np.frombuffer(chunks, _BIG_ENDIAN)).reshape(-1, 1, CHUNK_SIZE // 2)
    products = exp.take(log_weights[:, :, None] + words, mode="clip")
    sums: NDArray[np.uint16] = np.bitwise_xor.reduce(products, axis=0)
    return sums.astype(_BIG_ENDIAN).tobytes()


def _cut(data: bytes) -> list[bytes]:
    return [data[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE)]
