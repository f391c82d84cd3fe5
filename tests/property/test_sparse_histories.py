"""Random histories of the post-quantum ratchet, and damage to all that it reads.

The model: each message opens once, with the key it was sent with, whatever was lost, late or
repeated; no key comes twice; damage is refused and changes nothing.
"""

from __future__ import annotations

import random as random_module

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tripleratchet import CorruptRecord, InvalidMessage, RatchetError
from tripleratchet.messages import SignalMessage, _read_any, _read_canonical
from tripleratchet.sparse_pq import SparseRatchet, erasure, kem, wire
from tripleratchet.sparse_pq.erasure import Chunks
from tripleratchet.sparse_pq.resting import Resting, rest, restore

from tests.harness.ratchet import pair
from tests.harness.sparse import MAX_JUMP, End, ends, every_state, exchange

_KEYS = st.binary(min_size=32, max_size=32)
_STATES = every_state(5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((0, 10, 30, 60)), st.sampled_from((1, 4, 12)))
def test_two_ends_agree_on_every_key(seed: int, loss: int, burst: int) -> None:
    choose = random_module.Random(seed)
    one, other = ends(seed)
    under_way: dict[int, list[bytes]] = {0: [], 1: []}
    opened: list[bytes] = []
    for _ in range(120):
        to = choose.randrange(2)
        sender, receiver = (other, one) if to == 0 else (one, other)
        for _ in range(choose.randrange(burst + 1)):
            message = sender.send()
            if choose.randrange(100) >= loss:
                under_way[to].append(message)
        while under_way[to] and choose.randrange(4):
            message = under_way[to].pop(choose.randrange(min(4, len(under_way[to]))))
            try:
                key = receiver.receive(message)
            except InvalidMessage:
                # Only a message from before the last epoch that is still kept may be refused.
                assert wire.parse_prefix(message)[1] - 1 < receiver.ratchet.chains.first
                continue
            assert key == sender.keys[message]
            opened.append(message)
            with pytest.raises(InvalidMessage):
                receiver.receive(message)
    keys = [*one.keys.values(), *other.keys.values()]
    assert len(set(keys)) == len(keys)
    assert abs(one.epoch - other.epoch) <= 1
    assert len(opened) == len(set(opened))


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(_STATES)),
    position=st.integers(0, 5000),
    patch=st.binary(max_size=60),
    cut=st.booleans(),
)
def test_a_damaged_state_is_corrupt_or_reads_as_another(
    name: str, position: int, patch: bytes, *, cut: bool
) -> None:
    stored = _STATES[name].stored
    position %= len(stored)
    damaged = stored[:position] + patch + (b"" if cut else stored[position + len(patch) :])
    try:
        ratchet = SparseRatchet.from_bytes(damaged)
    except CorruptRecord:
        with pytest.raises(CorruptRecord):
            restore(damaged)
        return
    assert ratchet.to_bytes() == restore(damaged).to_bytes() == damaged


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(_STATES)),
    message=st.binary(max_size=60),
    is_version_1=st.booleans(),
)
def test_any_bytes_are_taken_or_refused_and_nothing_else(
    name: str, message: bytes, *, is_version_1: bool
) -> None:
    end = End(_STATES[name].stored, random_module.Random(1))
    try:
        end.receive(b"\x01\x01" + message if is_version_1 else message)
    except InvalidMessage:
        return
    assert SparseRatchet.from_bytes(end.stored).to_bytes() == end.stored


def test_states_rest_unless_something_is_not_made_yet() -> None:
    resting = {name for name, end in _STATES.items() if isinstance(restore(end.stored), Resting)}
    assert resting == set(_STATES) - {"KeysSampled"}  # its header, at first
    for end in _STATES.values():
        assert rest(end.ratchet).to_bytes() == end.stored


@settings(max_examples=60, deadline=None)
@given(st.sampled_from((3, 5, 30, 36)), st.integers(0, 2**32))
def test_any_chunks_give_the_message_back(needed: int, seed: int) -> None:
    choose = random_module.Random(seed)
    message = choose.randbytes(needed * 32)
    counters = choose.sample(range(65_536), needed - needed // 3)
    counters += choose.sample(range(needed), needed // 3)
    chunks, counters = Chunks(), list(dict.fromkeys(counters))
    while len(counters) < needed:
        counters = list(dict.fromkeys((*counters, choose.randrange(65_536))))
    choose.shuffle(counters)
    for count, counter in enumerate(counters):
        assert len(chunks) == count
        assert chunks.message(needed) is None
        wrong = chunks.add(counter, bytes(32), needed)
        chunks = wrong.add(counter, erasure.chunk(message, counter), needed)
    assert chunks.message(needed) == message


@settings(max_examples=15, deadline=None)
@given(st.binary(min_size=64, max_size=64), _KEYS)
def test_both_phases_make_what_the_library_decapsulates(seed: bytes, message: bytes) -> None:
    header, ek = kem.key_pair(seed)
    shared, ct1 = kem.encapsulate(header, message)
    assert kem.decapsulate(seed, ct1 + kem.complete(header, message, ek)) == shared


@settings(max_examples=400, deadline=None)
@given(position=st.integers(0, 400), patch=st.binary(max_size=4), insert=st.booleans())
def test_the_quick_reader_reads_what_the_strict_one_does(
    position: int, patch: bytes, *, insert: bool
) -> None:
    body = _BODY[: position % len(_BODY)] + patch
    body += _BODY[len(body) - (len(patch) if insert else 0) :]
    quick = _read_canonical(body, len(body) - 8) if len(body) > 8 else None
    if quick is None:
        return
    assert quick == _read_any(body[:-8])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((b"", b"\x00", b"\x02\x01\x01", b"\x01\x03\x01\x00")))
def test_a_forged_post_quantum_field_changes_nothing(seed: int, forged: bytes) -> None:
    """The field is under the MAC: whatever stands in it, a message with another one is refused."""
    one, other = pair(seed % 4)
    message = one.encrypt(other, b"text")
    parsed = SignalMessage.parse(message.body)
    body = message.body.replace(
        bytes((0x2A, len(parsed.pq_ratchet))) + parsed.pq_ratchet,
        bytes((0x2A, len(forged))) + forged if forged else b"",
    )
    assert body != message.body
    with pytest.raises(RatchetError):
        other.decrypt(one, type(message)(message.type, body))
    assert other.decrypt(one, message) == b"text"


def test_an_epoch_goes_on_under_heavy_loss() -> None:
    one, other = ends(9)
    choose = random_module.Random(9)
    while min(one.epoch, other.epoch) < 4:
        for sender, receiver in ((one, other), (other, one)):
            message = sender.send()
            if choose.randrange(2):
                assert receiver.receive(message) == sender.keys[message]
    exchange(one, other)
    assert MAX_JUMP == 25_000


_ONE, _OTHER = pair()
_BODY = _ONE.encrypt(_OTHER, b"a text of some length" * 9).body
