"""The stored record: its size, its damage, and every version of its format so far."""

from __future__ import annotations

import random
import statistics

import pytest
import tripleratchet as tr
from tripleratchet import record as record_module
from tripleratchet.sparse_pq import SparseRatchet

from tests.harness.ratchet import Device, pair

from .conftest import VECTORS, unhex

_RECORDS = VECTORS / "records"


def test_a_record_in_steady_traffic_is_small() -> None:
    one, other = pair()
    for _ in range(200):
        other.decrypt(one, one.encrypt(other, b"one direction"))
    assert len(one.records[other.address]) < 750
    assert len(other.records[one.address]) < 700


def test_a_record_in_ping_pong_stays_below_3000_bytes() -> None:
    """Through two whole epochs, so through every state that ping-pong comes to."""
    one, other = pair()
    sizes, states = [], set()
    for _ in range(90):
        for sender, receiver in ((one, other), (other, one)):
            receiver.decrypt(sender, sender.encrypt(receiver, b"text"))
            sizes.append(len(receiver.records[sender.address]))
            record = receiver.record(sender)
            assert record is not None
            current = record.current_session()
            assert current is not None
            pq = SparseRatchet.from_bytes(current.post_quantum.to_bytes())
            states.add(type(pq.state).__name__)
    assert len(states) >= 8
    assert max(sizes) < 3_000
    assert statistics.median(sizes) < 2_400


def test_the_first_byte_is_the_format_version() -> None:
    one, other = pair()
    stored = one.records[other.address]
    assert stored[0] == record_module.FORMAT_VERSION
    with pytest.raises(tr.CorruptRecord):
        tr.SessionRecord.from_bytes(b"\x7f" + stored[1:])


def test_a_cut_or_extended_record_is_corrupt_not_the_peers_fault() -> None:
    one, other = pair(acknowledged=False)
    one.start(other, other.bundle(one_time=2))
    stored = one.records[other.address]
    for size in {*range(0, len(stored), 7), len(stored) - 1}:
        with pytest.raises(tr.CorruptRecord):
            tr.SessionRecord.from_bytes(stored[:size])
    with pytest.raises(tr.CorruptRecord):
        tr.SessionRecord.from_bytes(stored + b"\x00")
    assert not issubclass(tr.CorruptRecord, tr.RatchetError)


def test_a_record_of_format_1_is_still_readable() -> None:
    """`v1-us.hex` and `v1-peer.hex` are the two ends of one conversation, with an archived
    session, skipped seeds on both sides and two messages still under way."""
    one = Device.create("9d0652a3-dcc3-4d11-975f-74d61598733f", seed=1)
    other = Device.create("6838237d-02f6-4098-b110-698253d15961", seed=1)
    one.records[other.address] = unhex((_RECORDS / "v1-us.hex").read_text())
    other.records[one.address] = unhex((_RECORDS / "v1-peer.hex").read_text())
    under_way = [
        tr.CiphertextMessage(2, unhex(line))
        for line in (_RECORDS / "v1-under-way.hex").read_text().split()
    ]
    other.random = random.Random("after the restore").randbytes  # never draw old keys again
    assert [other.decrypt(one, message) for message in under_way] == [b"late", b"newest"]
    assert one.decrypt(other, other.encrypt(one, b"answer")) == b"answer"
    record = one.record(other)
    assert record is not None
    assert len(record.archived) == 1
    assert not record.is_post_quantum
    assert record.to_bytes()[0] == record_module.FORMAT_VERSION


def test_a_record_of_format_2_is_still_readable() -> None:
    """The same with the post-quantum ratchet, in its second epoch."""
    one = Device.create("9d0652a3-dcc3-4d11-975f-74d61598733f", seed=11)
    other = Device.create("6838237d-02f6-4098-b110-698253d15961", seed=11)
    one.records[other.address] = unhex((_RECORDS / "v2-us.hex").read_text())
    other.records[one.address] = unhex((_RECORDS / "v2-peer.hex").read_text())
    for device, peer in ((one, other), (other, one)):
        record = device.record(peer)
        assert record is not None
        assert record.to_bytes() == device.records[peer.address]
        device.random = random.Random("after the restore").randbytes  # never draw old keys again
    under_way = [
        tr.CiphertextMessage(2, unhex(line))
        for line in (_RECORDS / "v2-under-way.hex").read_text().split()
    ]
    assert [other.decrypt(one, message) for message in under_way] == [b"late", b"newest"]
    assert one.decrypt(other, other.encrypt(one, b"answer")) == b"answer"


def test_a_pending_record_of_format_1_is_still_readable() -> None:
    one = Device.create("9d0652a3-dcc3-4d11-975f-74d61598733f", seed=2)
    declined = tr.PostQuantumPolicy.DECLINED  # what every session of that format is
    other = Device.create("6838237d-02f6-4098-b110-698253d15961", seed=2, policy=declined)
    other.bundle()
    one.records[other.address] = unhex((_RECORDS / "v1-pending.hex").read_text())
    message = one.encrypt(other, b"first")
    assert message.type == 3
    assert other.decrypt(one, message) == b"first"


def test_an_archived_session_of_another_form_is_corrupt() -> None:
    one, other = pair()
    record = one.record(other)
    assert record is not None
    (stored,) = record.archive().archived
    for damaged in (stored[:50], stored[:-1], stored + b"x"):
        with pytest.raises(tr.CorruptRecord):
            tr.SessionRecord(None, (damaged,)).archived_session(0)
