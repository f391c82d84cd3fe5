"""Every part of the post-quantum ratchet against values it did not make."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import pytest
from tripleratchet import InvalidMessage
from tripleratchet.sparse_pq import authenticator, erasure, field, kem, lattice, wire
from tripleratchet.sparse_pq.chains import Chains
from tripleratchet.sparse_pq.erasure import Chunks

from ..conftest import load_file, unhex

_MLKEM = [*load_file("spqr-mlkem")["cases"], load_file("spqr-live-mlkem")]
_ERASURE = load_file("spqr-erasure")["cases"]
_WIRE = load_file("spqr-wire")
_JUMP = 25_000


def test_the_field() -> None:
    vectors, (log, exp) = load_file("spqr-gf16"), field.tables()
    assert int(vectors["poly"], 16) == field.POLYNOMIAL
    for case in vectors["mul"]:
        assert int(exp[log[case["a"]] + log[case["b"]]]) == case["ab"]
    assert sorted(log[1:].tolist()) == list(range(field.ORDER))


@pytest.mark.parametrize("case", _ERASURE, ids=lambda case: case["what"])
def test_erasure(case: dict[str, Any]) -> None:
    message, needed = unhex(case["message"]), case["chunks_needed"]
    for chunk in case["chunks"]:
        assert erasure.chunk(message, chunk["index"]) == unhex(chunk["data"])
        assert erasure.chunk(message, chunk["index"] + 0x10000) == unhex(chunk["data"])
    for given in case["decode_sets"]:
        order = list(given["chunks"])
        random.Random(given["note"]).shuffle(order)
        chunks = Chunks()
        for chunk in order:
            assert chunks.message(needed) is None
            chunks = chunks.add(chunk["index"], unhex(chunk["data"]), needed)
        assert chunks.message(needed) == message


@pytest.mark.parametrize("case", _MLKEM, ids=["one", "two", "three", "official client"])
def test_mlkem(case: dict[str, Any]) -> None:
    seed, header, ek = (unhex(case[k]) for k in ("seed_d_z", "header_rho_hash", "ek_vector"))
    message = unhex(case["m"])
    assert kem.key_pair(seed) == (header, ek)
    kem.check_ek(header, ek)
    shared, ct1 = kem.encapsulate(header, message)
    ct2 = kem.complete(header, message, ek)
    assert (ct1, ct2) == (unhex(case["ct1"]), unhex(case["ct2"]))
    assert shared == unhex(case["shared_secret"]) == kem.decapsulate(seed, ct1 + ct2)


def test_reduction_and_compression_are_exact() -> None:
    spread = [np.arange(start, start + 40_000) for start in (0, 2**30, 2**31 - 40_000)]
    values = np.concatenate([*spread, np.arange(0, 2**31, 99_991)]).astype(np.int64)
    assert (lattice.reduce(values) == values % lattice.Q).all()
    every = np.arange(lattice.Q, dtype=np.int64)
    padded = np.concatenate([every, np.zeros(13 * 256 + 256 - lattice.Q, np.int64)])
    cube = np.ascontiguousarray(padded.reshape(-1, 128, 2).transpose(0, 2, 1))
    for bits, packed in ((10, lattice.compress_10(cube)), (4, lattice.compress_4(cube))):
        expected = ((padded << bits) + 1664) // lattice.Q % (1 << bits)
        assert int.from_bytes(packed, "little") == sum(
            int(value) << bits * place for place, value in enumerate(expected)
        )


def test_more_candidates_are_drawn_when_too_many_are_refused() -> None:
    short = np.full(448, lattice.Q, np.int64)
    seed = bytes(34)
    whole = lattice.sample_transposed_matrix(bytes(32))
    assert (lattice._first_below_q(short, seed) == whole[0, 0].T.reshape(-1)).all()


def test_a_foreign_or_out_of_range_key_is_refused() -> None:
    header, ek = kem.key_pair(bytes(64))
    with pytest.raises(InvalidMessage, match="not the header's"):
        kem.check_ek(header, bytes([ek[0] ^ 1]) + ek[1:])
    bad = b"\xff\xff" + ek[2:]
    forged = header[:32] + hashlib.sha3_256(bad + header[:32]).digest()
    with pytest.raises(InvalidMessage, match="out of range"):
        kem.check_ek(forged, bad)


def test_the_authenticator() -> None:
    vectors = load_file("spqr-authenticator")
    start = authenticator.start(unhex(vectors["auth_key"]))
    assert start == _authenticator(vectors["after_init"])
    secret = vectors["epoch_secret"]
    assert authenticator.epoch_secret(unhex(secret["mlkem_shared_secret"]), 1) == unhex(
        secret["secret"]
    )
    first = authenticator.update(start, 1, unhex(secret["secret"]))
    assert first == _authenticator(vectors["after_update_epoch1"])
    by_key = {"after_init": start, "after_update_epoch1": first}
    for case in vectors["mac_hdr"]:
        mac = unhex(case["mac"])
        auth, epoch, header = by_key[case["key"]], case["epoch"], unhex(case["header"])
        authenticator.check_header(auth, epoch, header, mac)
        with pytest.raises(InvalidMessage):
            authenticator.check_header(auth, epoch + 1, header, mac)
    for case in vectors["mac_ct"]:
        mac = unhex(case["mac"])
        auth, epoch, ciphertext = by_key[case["key"]], case["epoch"], unhex(case["ct1_ct2"])
        authenticator.check_ciphertext(auth, epoch, ciphertext, mac)
        with pytest.raises(InvalidMessage):
            authenticator.check_ciphertext(auth, epoch, ciphertext, mac[::-1])
    second = vectors["update_epoch2"]
    shared = authenticator.epoch_secret(unhex(second["mlkem_shared_secret"]), 2)
    assert authenticator.update(first, 2, shared) == _authenticator(second)


def _authenticator(fields: dict[str, str]) -> bytes:
    return unhex(fields["root_key"]) + unhex(fields["mac_key"])


def test_the_chains() -> None:
    vectors = load_file("spqr-chain")
    sides = {
        "a2b": Chains.start(unhex(vectors["auth_key"]), is_initiator=True),
        "b2a": Chains.start(unhex(vectors["auth_key"]), is_initiator=False),
    }
    for number, epoch in enumerate((vectors["epoch0"], *vectors["epochs"])):
        for side, other in (("a2b", "b2a"), ("b2a", "a2b")):
            chain = sides[side]
            if number:
                chain = chain.add_epoch(unhex(epoch["secret"]))
            assert chain.next_root == unhex(epoch["next_root"])
            assert chain.pairs[-1][4:36] == unhex(epoch[f"{side}_start"])
            assert chain.pairs[-1][40:72] == unhex(epoch[f"{other}_start"])
            for case in epoch[f"{side}_keys"]:
                chain, key_index, key = chain.next_sending(number)
                assert (key_index, key) == (case["index"], unhex(case["key"]))
                assert chain.pairs[-1][4:36] == unhex(case["next_after"])
            for case in epoch[f"{other}_keys"]:
                chain, key = chain.receiving(number, case["index"], _JUMP)
                assert key == unhex(case["key"])
            sides[side] = chain
    far = Chains.start(unhex(vectors["auth_key"]), is_initiator=False)
    for key_index, expected in vectors["epoch0"]["a2b_far"].items():
        far, key = far.receiving(0, int(key_index), _JUMP)
        assert key == unhex(expected)


@pytest.mark.parametrize("case", _WIRE["roundtrip"], ids=lambda case: case["encoded"][:14])
def test_wire(case: dict[str, Any]) -> None:
    encoded, chunk = unhex(case["encoded"]), case["chunk"] or {"index": 0, "data": ""}
    epoch, kind, data = int(case["epoch"]), int(case["type"]), unhex(chunk["data"])
    built = wire.build(epoch, case["index"], kind, chunk["index"], data)
    assert built == encoded
    prefix = wire.parse_prefix(encoded)
    assert prefix[:3] == (1, epoch, case["index"])
    assert wire.parse_content(encoded, prefix[3]) == (kind, chunk["index"], data)


@pytest.mark.parametrize("case", _WIRE["accept"], ids=lambda case: case["what"])
def test_oddities_that_are_accepted(case: dict[str, Any]) -> None:
    encoded = unhex(case["bytes"])
    wire.parse_content(encoded, wire.parse_prefix(encoded)[3])
