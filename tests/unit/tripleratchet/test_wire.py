"""The protobuf reader against damage, and the framing errors that need no key."""

from __future__ import annotations

import pytest
import tripleratchet as tr
from tripleratchet.wire import BYTES, VARINT, bytes_field, read_fields, uint_field, varint

_KNOWN = {1: VARINT, 2: BYTES}


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (b"", {}),
        (uint_field(1, 0) + bytes_field(2, b""), {1: 0, 2: b""}),
        (uint_field(1, 5) + uint_field(1, 6), {1: 6}),
        (b"\x08" + varint(2**32 + 7), {1: 7}),
        (b"\x08\x80\x00", {1: 0}),
        (b"\x08" + b"\xff" * 9 + b"\x01", {1: 2**32 - 1}),
        (b"\x88\x00\x01", {1: 1}),
        (uint_field(9, 1) + uint_field(1, 2), {1: 2}),
        (bytes_field(9, b"abc") + uint_field(1, 2), {1: 2}),
        (b"\x4d" + bytes(4) + b"\x49" + bytes(8) + uint_field(1, 2), {1: 2}),
        (b"\x4b" + uint_field(1, 9) + b"\x4c" + uint_field(1, 2), {1: 2}),
        (b"\x4b\x53\x54\x4c", {}),
    ],
)
def test_readable(data: bytes, fields: dict[int, int | bytes]) -> None:
    assert read_fields(data, _KNOWN) == fields


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",
        b"\x08\x80",
        b"\x08" + b"\xff" * 10,
        b"\x08" + b"\xff" * 9 + b"\x02",
        b"\x12\x01",
        b"\x12\xff\xff\xff\xff\x0f",
        b"\x0a\x00",
        b"\x10\x00",
        b"\x00\x00",
        b"\x4e",
        b"\x4f",
        b"\x4c",
        b"\x4b\x54",
        b"\x4b",
        b"\x4d" + bytes(3),
        b"\x49" + bytes(7),
        b"\x4b" * 200,
        b"\xf8\xff\xff\xff\xff\x01\x00",
    ],
)
def test_unreadable(data: bytes) -> None:
    with pytest.raises(tr.InvalidProtobufEncoding):
        read_fields(data, _KNOWN)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 16_383, 16_384, 2**32 - 1, 2**63])
def test_varint_round_trip(value: int) -> None:
    assert read_fields(bytes_field(2, b"") + b"\x08" + varint(value), _KNOWN)[1] == value % 2**32
