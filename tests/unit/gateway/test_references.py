"""What a business calls its message, sealed."""

from __future__ import annotations

import pytest
from letterlockd.gateway.references import ReferenceKey, open_reference
from letterlockd.model.ids import MessageId
from letterlockd.sealing.errors import SealBroken
from letterlockd.sealing.keyring import DayKey
from letterlockd.sealing.seal import Cipher

KEY = b"k" * 32
MESSAGE, OTHER = MessageId(b"m" * 16), MessageId(b"o" * 16)


@pytest.mark.parametrize("key", ["a", "~" * 64])
@pytest.mark.parametrize("tag", [b"", b"\0", b"t" * 128])
def test_key_and_tag_come_back(key: str, tag: bytes) -> None:
    sealed = ReferenceKey.of(DayKey(b"12345678", KEY)).seal(MESSAGE, key, tag)
    assert key.encode() not in sealed or len(key) == 1
    assert open_reference(Cipher(KEY), MESSAGE, sealed) == (key, tag)


def test_a_reference_opens_for_its_own_message_alone() -> None:
    sealed = ReferenceKey.of(DayKey(b"12345678", KEY)).seal(MESSAGE, "key", b"tag")
    with pytest.raises(SealBroken):
        open_reference(Cipher(KEY), OTHER, sealed)
    with pytest.raises(SealBroken):
        open_reference(Cipher(b"x" * 32), MESSAGE, sealed)


@pytest.mark.parametrize("plain", [b"", b"\0tag", b"\x05key"])
def test_what_is_no_reference_is_a_broken_seal(plain: bytes) -> None:
    with pytest.raises(SealBroken):
        open_reference(Cipher(KEY), MESSAGE, Cipher(KEY).seal(plain, MESSAGE + b"reference"))
