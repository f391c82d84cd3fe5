"""Protobuf as two peers must agree on it: a strict reader and the few writers messages need.

Hand-written because verdicts depend on details that libraries hide: which damage is refused,
uint32 truncation, last one wins, and that a zero counter is written. Knows no message.
Source: facts/signal-session.md section 8.
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import InvalidProtobufEncoding

VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = 0, 1, 2, 3, 4, 5
_MAX_VARINT_BYTES = 10
_MAX_GROUP_DEPTH = 100
_UINT32 = 0xFFFF_FFFF


def read_fields(
    data: bytes, known: Mapping[int, int], largest: int = _UINT32
) -> dict[int, int | bytes]:
    """The last value of each known field (number → wire type, VARINT cut to `largest`, or BYTES).

    Unknown fields are skipped. Raises InvalidProtobufEncoding for anything malformed.
    """
    fields: dict[int, int | bytes] = {}
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if known.get(number) is None:
            at = _skip(data, at, number, wire_type, _MAX_GROUP_DEPTH)
        elif known[number] != wire_type:
            raise InvalidProtobufEncoding(f"field {number} has another wire type")
        else:
            value = data[at] if at < end else 0x80
            if value < 0x80:
                at += 1
            else:
                value, at = _varint(data, at)
            if wire_type == BYTES:
                start, at = at, at + value
                if at > end:
                    raise InvalidProtobufEncoding("truncated")
                fields[number] = data[start:at]
            else:
                fields[number] = value & largest
    return fields


def varint(value: int) -> bytes:
    """The shortest encoding of a number that is not negative."""
    if value < 0x80:
        return _SMALL[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def uint_field(number: int, value: int) -> bytes:
    """A varint field, written even when zero."""
    return varint(number << 3 | VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A length-delimited field, written even when empty."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


_SMALL = tuple(bytes([value]) for value in range(0x80))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    for byte in data[at : at + _MAX_VARINT_BYTES]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
        shift += 7
    raise InvalidProtobufEncoding("malformed varint")


def _skip(data: bytes, at: int, number: int, wire_type: int, depth: int) -> int:
    if not 0 < number <= _UINT32 >> 3 or depth == 0:
        raise InvalidProtobufEncoding("malformed tag")
    if wire_type == VARINT:
        at = _varint(data, at)[1]
    elif wire_type == FIXED64:
        at += 8
    elif wire_type == FIXED32:
        at += 4
    elif wire_type == BYTES:
        length, at = _varint(data, at)
        at += length
    elif wire_type == GROUP:
        at = _skip_group(data, at, number, depth - 1)
    else:
        raise InvalidProtobufEncoding("unknown wire type")
    if at > len(data):
        raise InvalidProtobufEncoding("truncated")
    return at


def _skip_group(data: bytes, at: int, number: int, depth: int) -> int:
    while True:
        tag, at = _varint(data, at)
        if tag == number << 3 | GROUP_END:
            return at
        at = _skip(data, at, tag >> 3, tag & 7, depth)
