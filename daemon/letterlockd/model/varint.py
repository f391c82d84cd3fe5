"""The length prefix of Protocol Buffers, for messages that are put together from serialised parts.

Parts that are serialised already need not be parsed to stand in a larger message: a field is its
tag, its length and its bytes, and repeated fields may be concatenated. Knows no messages.
"""

from __future__ import annotations

__all__ = ["varint"]


def varint(number: int) -> bytes:
    """`number` (0 or more) in groups of 7 bits, the lowest first."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:  # nearly every length
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80,)) + varint(number >> 7)
