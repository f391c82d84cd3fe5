from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letterlockd.sealing.errors import SealBroken
from letterlockd.sealing.seal import (
    OVERHEAD_BYTES,
    Cipher,
    Deriver,
    lookup_hash,
    place,
    seal,
    subkey,
    unseal,
)

KEY = bytes(range(32))


@given(plaintext=st.binary(max_size=300), context=st.binary(max_size=40))
def test_round_trip_and_size(plaintext: bytes, context: bytes) -> None:
    sealed = seal(KEY, plaintext, context)
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES
    assert unseal(KEY, sealed, context) == plaintext


@given(st.data())
def test_any_change_breaks_the_seal(data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, b"letter", b"here"))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        unseal(KEY, bytes(sealed), b"here")


@pytest.mark.parametrize("length", range(len(seal(KEY, b"letter", b""))))
def test_any_truncation_breaks_the_seal(length: int) -> None:
    with pytest.raises(SealBroken):
        unseal(KEY, seal(KEY, b"letter", b"")[:length], b"")


def test_another_place_or_key_breaks_the_seal() -> None:
    sealed = seal(KEY, b"letter", place(10, b"a"))
    for key, context in (
        (KEY, place(10, b"b")),
        (KEY, place(11, b"a")),
        (bytes(32), place(10, b"a")),
    ):
        with pytest.raises(SealBroken) as caught:
            unseal(key, sealed, context)
        assert caught.value.reason == "SEAL_BROKEN"


def test_known_answer() -> None:
    """AES-256-GCM, NIST test case 15 (McGrew and Viega, 2005), as far as our framing allows: the
    additional data is ours, so only the ciphertext is compared, not the tag."""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    nonce = bytes.fromhex("cafebabefacedbaddecaf888")
    plaintext = bytes.fromhex("d9313225f88406e5a55909c5aff5269a")
    sealed = seal(key, plaintext, b"", random=lambda size: nonce[:size])
    assert sealed[:29] == b"\x01" + nonce + bytes.fromhex("522dc1f099567d07f47f37a32a84427d")


def test_two_seals_of_the_same_differ() -> None:
    assert seal(KEY, b"letter", b"") != seal(KEY, b"letter", b"")


def test_subkeys_differ_by_key_label_and_every_part() -> None:
    keys = {
        subkey(KEY, "a"),
        subkey(bytes(32), "a"),
        subkey(KEY, "b"),
        subkey(KEY, "a", b""),
        subkey(KEY, "a", b"x", b"y"),
        subkey(KEY, "a", b"xy"),
        subkey(KEY, "a", b"", b"xy"),
        lookup_hash(KEY, "a", b""),
        lookup_hash(KEY, "a", b"xy"),
    }
    assert len(keys) == 9
    assert {len(key) for key in keys} == {32}


def test_a_key_made_ready_once_does_the_same() -> None:
    cipher, deriver = Cipher(KEY), Deriver(KEY)
    assert unseal(KEY, cipher.seal(b"letter", b"here"), b"here") == b"letter"
    assert cipher.unseal(seal(KEY, b"letter", b"here"), b"here") == b"letter"
    with pytest.raises(SealBroken):
        cipher.unseal(seal(KEY, b"letter", b"here"), b"there")
    for _ in range(2):  # deriving leaves the key as it was
        assert deriver.subkey("a", b"x", b"y") == subkey(KEY, "a", b"x", b"y")
        assert deriver.lookup_hash("a", b"x") == lookup_hash(KEY, "a", b"x")


def test_workers_can_import_it_lightly() -> None:
    program = (
        "import sys, letterlockd.sealing.seal\n"
        "heavy = {'asyncio', 'grpc', 'google.protobuf', 'lmdb', 'letterlockd.store.port'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
