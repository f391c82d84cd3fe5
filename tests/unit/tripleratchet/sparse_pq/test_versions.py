"""The rules of versions, and what each policy makes of a peer."""

from __future__ import annotations

from typing import Any

import pytest
import tripleratchet as tr
from tripleratchet import InvalidMessage, PostQuantumPolicy
from tripleratchet.messages import PreKeySignalMessage, SignalMessage
from tripleratchet.post_quantum import DECLINED
from tripleratchet.sparse_pq import SparseRatchet, wire

from tests.harness.ratchet import Device, pair
from tests.harness.sparse import MAX_JUMP, End, ends

from ..conftest import load_file, unhex

_NAMES = ("9d0652a3-dcc3-4d11-975f-74d61598733f", "6838237d-02f6-4098-b110-698253d15961")
_REQUIRED, _OPTIONAL = PostQuantumPolicy.REQUIRED, PostQuantumPolicy.OPTIONAL
_DECLINED = PostQuantumPolicy.DECLINED


def _negotiating() -> End:
    return ends()[1]


def _settled() -> End:
    sender, receiver = ends()
    receiver.receive(sender.send())
    return receiver


@pytest.mark.parametrize("make", [_negotiating, _settled])
@pytest.mark.parametrize("case", load_file("spqr-wire")["reject"], ids=lambda case: case["what"])
def test_what_is_rejected_always(make: Any, case: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        make().receive(unhex(case["bytes"]))


@pytest.mark.parametrize("version", [2, 3, 128, 255])
def test_an_unknown_version_while_negotiating(version: int) -> None:
    sender, receiver = ends()
    first = sender.send()
    later = bytes([version]) + first[1:3] + b"whatever follows"
    state = receiver.ratchet.state
    assert receiver.receive(later) == sender.keys[first]
    assert receiver.ratchet.state == state
    assert receiver.receive(bytes([version]) + b"\x01\x00") is None
    with pytest.raises(InvalidMessage, match="used before"):
        receiver.receive(first)
    second = sender.send()
    assert receiver.receive(second) == sender.keys[second]
    with pytest.raises(InvalidMessage, match="version"):
        receiver.receive(bytes([version]) + b"\x01\x09")


@pytest.mark.parametrize("make", [_negotiating, _settled])
def test_a_message_without_a_key(make: Any) -> None:
    """What clients say that still negotiate: taken at any time, never said by us."""
    receiver = make()
    assert receiver.receive(b"\x01\x01\x00\x00") is None
    with pytest.raises(InvalidMessage):
        receiver.receive(b"\x01\x02\x00\x00")


def test_an_optional_ratchet_sends_no_key_until_it_has_heard() -> None:
    start = SparseRatchet.start(bytes(32), is_initiator=True, is_optional=True)
    _, other = ends()
    other.stored = SparseRatchet.start(bytes(32), is_initiator=False).to_bytes()
    following, message, key = SparseRatchet.from_bytes(start.to_bytes()).send(lambda n: bytes(n))
    assert (wire.parse_prefix(message)[2], key) == (0, None)
    assert other.receive(message) is None
    answer = other.send()
    heard, answer_key = following.receive(answer, MAX_JUMP)
    assert answer_key == other.keys[answer]
    assert heard is not None
    _, message, key = heard.send(lambda n: bytes(n))
    assert key is not None
    assert other.receive(message) == key
    with pytest.raises(InvalidMessage, match="lacks"):
        heard.receive(b"", MAX_JUMP)


@pytest.mark.parametrize("silence", [b"", b"\x00\x01\x01"])
def test_an_optional_ratchet_ends_where_the_peer_has_none(silence: bytes) -> None:
    start = SparseRatchet.start(bytes(32), is_initiator=True, is_optional=True)
    assert start.receive(silence, MAX_JUMP) == (None, None)


def _talk(one: Device, other: Device, turns: int = 6) -> list[tr.CiphertextMessage]:
    sent = []
    for number in range(turns):
        sender, receiver = (one, other) if number % 2 == 0 else (other, one)
        sent.append(sender.encrypt(receiver, b"text"))
        assert receiver.decrypt(sender, sent[-1]) == b"text"
    return sent


def _spoken(message: tr.CiphertextMessage) -> bytes:
    if message.type == tr.MessageType.PRE_KEY:
        return PreKeySignalMessage.parse(message.body).message.pq_ratchet
    return SignalMessage.parse(message.body).pq_ratchet


@pytest.mark.parametrize(
    ("initiator", "responder", "indexes"),
    [
        (_REQUIRED, _REQUIRED, [1, 1, 2, 2]),
        (_REQUIRED, _OPTIONAL, [1, 1, 2, 2]),
        (_OPTIONAL, _REQUIRED, [0, 1, 1, 2]),
        (_OPTIONAL, _OPTIONAL, [0, 1, 1, 2]),
        (_OPTIONAL, _DECLINED, [0, None, None, None]),
        (_DECLINED, _OPTIONAL, [None, None, None, None]),
        (_DECLINED, _DECLINED, [None, None, None, None]),
    ],
)
def test_what_two_policies_speak(
    initiator: PostQuantumPolicy, responder: PostQuantumPolicy, indexes: list[int | None]
) -> None:
    one = Device.create(_NAMES[0], policy=initiator)
    other = Device.create(_NAMES[1], policy=responder)
    one.start(other)
    spoken = [_spoken(message) for message in _talk(one, other)]
    assert [wire.parse_prefix(said)[2] if said else None for said in spoken][:4] == indexes
    for device, peer in ((one, other), (other, one)):
        record = device.record(peer)
        assert record is not None
        assert record.is_post_quantum is (indexes[-1] is not None)


@pytest.mark.parametrize("declining", ["initiator", "responder"])
def test_a_required_ratchet_refuses_a_peer_without(declining: str) -> None:
    policies = [_DECLINED, _REQUIRED] if declining == "initiator" else [_REQUIRED, _DECLINED]
    one = Device.create(_NAMES[0], policy=policies[0])
    other = Device.create(_NAMES[1], policy=policies[1])
    one.start(other)
    first = one.encrypt(other, b"first")
    with pytest.raises(tr.InvalidMessage):
        other.decrypt(one, first)


def test_a_session_keeps_what_it_began_with() -> None:
    one, other = pair(policy=_DECLINED)
    for device in (one, other):
        device.local = tr.LocalParty(device.address, device.local.identity, 1, _REQUIRED)
    _talk(one, other)
    record = one.record(other)
    assert record is not None
    current = record.current_session()
    assert current is not None
    assert current.post_quantum is DECLINED
    one.start(other, other.bundle(one_time=7))
    _talk(one, other)
    fresh = one.record(other)
    assert fresh is not None
    assert fresh.is_post_quantum
