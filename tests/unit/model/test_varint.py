from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from letterlockd.model.varint import varint


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16_383, 16_384, 2_097_151, 2_097_152])
def test_a_length_is_what_protobuf_reads(number: int) -> None:
    field = BytesValue.FromString(b"\x0a" + varint(number) + bytes(number))
    assert len(field.value) == number
