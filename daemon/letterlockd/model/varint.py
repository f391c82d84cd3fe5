"""The length prefix of Protocol Buffers, for messages that are put together from serialised parts.

Parts that are serialised already need not be parsed to stand in a larger message: a field is its
tag, its length and its bytes, and repeated fields may be concatenated. Knows no messages.
"""

from __future__ import annotations

__all__ = ["varint"]

_MADE_READY = 0x800
"""Nearly every length: made once, which takes 100 kB, instead of some ten times a message."""


def varint(number: int) -> bytes:
    """`number` (0 or more) in groups of 7 bits, the lowest first."""
    return _READY[number] if number < _MADE_READY else _varint(number)


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    return bytes((number & 0x7F | 0x80,)) + _varint(number >> 7)


_READY = tuple(_varint(number) for number in range(_MADE_READY))
