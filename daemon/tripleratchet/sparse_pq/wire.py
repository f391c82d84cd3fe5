"""The bytes of a post-quantum ratchet message, as they fill field 5 of a SignalMessage.

    01 | epoch varint | index varint | type | chunk index varint | chunk (32)
                                              \\____ types with a chunk ____/

Knows no state: whether a type is expected is not its business. Source: facts/spqr.md section 2.
"""

from __future__ import annotations

from enum import IntEnum

from ..errors import InvalidMessage
from ..wire import varint
from .limits import CHUNK_SIZE, MAX_CHUNK_INDEX, MAX_INDEX, VERSION

_VERSION = bytes([VERSION])
_MAX_VARINT_BYTES = 10
_UINT64 = 2**64 - 1


class Kind(IntEnum):
    """What a message says about the key exchange."""

    NONE = 0
    HEADER = 1
    EK = 2
    EK_ACK = 3
    ACK = 4
    CT1 = 5
    CT2 = 6


_KNOWN = frozenset(int(kind) for kind in Kind)
NONE, HEADER, EK, EK_ACK, ACK, CT1, CT2 = (int(kind) for kind in Kind)
_WITHOUT_CHUNK = frozenset((NONE, ACK))
_KINDS = tuple(bytes([kind]) for kind in Kind)


Prefix = tuple[int, int, int, int]
"""Version, epoch and key index, which every version begins with, and where the rest begins."""

Content = tuple[int, int, bytes]
"""Type, chunk index and chunk of a version 1 message; 0 and nothing for types without a chunk."""


def build(epoch: int, index: int, kind: int, counter: int, chunk: bytes) -> bytes:
    """The bytes of a version 1 message; the chunk index is the low 16 bits of `counter`."""
    head = _VERSION + varint(epoch) + varint(index) + _KINDS[kind]
    return head + varint(counter & MAX_CHUNK_INDEX) + chunk if chunk else head


def parse_prefix(data: bytes) -> Prefix:
    """Version, epoch (at least 1) and key index. Raises InvalidMessage."""
    epoch, at = _number(data, 1)
    index, at = _number(data, at)
    version = data[0]
    if epoch == 0 or index > MAX_INDEX:
        raise InvalidMessage("post-quantum epoch or index out of range")
    return version, epoch, index, at


def parse_content(data: bytes, at: int) -> Content:
    """Type and chunk, from where the prefix ended; what follows is ignored. Raises
    InvalidMessage."""
    kind = data[at] if at < len(data) else -1
    if kind not in _KNOWN:
        raise InvalidMessage("post-quantum message of no known type")
    if kind in _WITHOUT_CHUNK:
        return kind, 0, b""
    chunk_index, at = _number(data, at + 1)
    chunk = data[at : at + CHUNK_SIZE]
    if chunk_index > MAX_CHUNK_INDEX or len(chunk) != CHUNK_SIZE:
        raise InvalidMessage("post-quantum chunk out of range")
    return kind, chunk_index, chunk


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint; nearly all have one byte or two."""
    if at + 1 < len(data):
        low, high = data[at], data[at + 1]
        if low < 0x80:
            return low, at + 1
        if high < 0x80:
            return low & 0x7F | high << 7, at + 2
    return _varint(data, at)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    # Looser than protobuf's: long forms pass, and bits beyond 64 are dropped (section 2.2).
    value, shift = 0, 0
    for byte in data[at : at + _MAX_VARINT_BYTES]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _UINT64, at
        shift += 7
    raise InvalidMessage("post-quantum message is cut short")
