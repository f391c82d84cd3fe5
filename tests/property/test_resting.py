"""A session that rests does what the decoded one does, byte for byte, or leaves it to that one."""

from __future__ import annotations

import random as random_module
from collections import Counter

import pytest
import tripleratchet as tr
from hypothesis import given, settings
from hypothesis import strategies as st
from tripleratchet import resting, session, stored
from tripleratchet.messages import SignalMessage
from tripleratchet.resting import Resting
from tripleratchet.sparse_pq import SparseRatchet
from tripleratchet.sparse_pq.resting import Resting as SparseResting

from tests.harness.ratchet import Device, pair

_REPEATING = {
    *("KeysSampled", "HeaderSent", "Ct1Received", "EkSentCt1Received", "NoHeaderReceived"),
    *("Ct1Sampled", "EkReceivedCt1Sampled", "Ct1Acknowledged", "Ct2Sampled"),
}


def _current(device: Device, other: Device) -> bytes:
    record = device.record(other)
    assert record is not None
    current = record.current_session()
    assert current is not None
    return stored.encode(current)


def _state(data: bytes) -> str:
    return type(_whole(data).post_quantum.state).__name__


def _seal(sender: Device, receiver: Device, text: bytes) -> tuple[tr.CiphertextMessage, bool]:
    """A message, and whether the resting session made it from its bytes: the same one."""
    before = _current(sender, receiver)
    message = sender.encrypt(receiver, text)
    rested = resting.restore(before)
    if not isinstance(rested, Resting) or not isinstance(rested.post_quantum, SparseResting):
        return message, False
    whole = _whole(before)
    if not whole.post_quantum.repeats:
        return message, False
    following, body = rested.seal(text, pytest.fail)
    expected, also = session.seal(
        whole, text, local=sender.address, remote=receiver.address, random=pytest.fail
    )
    assert following.to_bytes() == stored.encode(expected) == _current(sender, receiver)
    assert (message.body, also.body) == (body, body)
    return message, isinstance(following.post_quantum, SparseResting)


def _whole(data: bytes) -> session.Session:
    """The session with nothing of it resting."""
    decoded = stored.decode(data)
    pq = SparseRatchet.from_bytes(decoded.post_quantum.to_bytes())
    return decoded._replace(post_quantum=pq)


def _open(receiver: Device, sender: Device, message: tr.CiphertextMessage) -> bool:
    """Open a message both ways; whether the resting session could, in its bytes."""
    before = _current(receiver, sender)
    parsed = SignalMessage.parse(message.body)
    rested = resting.restore(before)
    opened = rested.open(parsed) if isinstance(rested, Resting) else None
    if opened is not None:
        expected, text = session.open_message(
            _whole(before),
            parsed,
            local=receiver.address,
            remote=sender.address,
            random=pytest.fail,
        )
        assert (opened[0].to_bytes(), opened[1]) == (stored.encode(expected), text)
    receiver.decrypt(sender, message)
    return opened is not None and isinstance(opened[0].post_quantum, SparseResting)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((0, 15, 40)), st.sampled_from((1, 3, 12)))
def test_both_forms_agree_on_any_history(seed: int, loss: int, burst: int) -> None:
    choose = random_module.Random(seed)
    one, other = pair(seed % 5)
    for turn in range(40):
        sender, receiver = (one, other) if turn % 2 == 0 else (other, one)
        sent = [_seal(sender, receiver, b"text")[0] for _ in range(choose.randint(1, burst))]
        kept = [message for message in sent if choose.randrange(100) >= loss] or sent[-1:]
        if choose.randrange(3) == 0:
            choose.shuffle(kept)
        for message in kept:
            _open(receiver, sender, message)
            with pytest.raises((tr.DuplicatedMessage, tr.InvalidMessage)):
                receiver.decrypt(sender, message)


def test_one_direction_rests_in_every_repeating_state() -> None:
    """From each state that a conversation comes to: the second message on is written in place."""
    sealed: Counter[str] = Counter()
    opened: Counter[str] = Counter()
    for bursts, turns in (((1, 1), 140), ((40, 3), 8)):
        one, other = pair()
        for turn in range(turns):
            sender, receiver = (one, other) if turn % 2 == 0 else (other, one)
            for _ in range(bursts[turn % 2]):
                receiver.decrypt(sender, sender.encrypt(receiver, b"text"))
            saved = dict(sender.records), dict(receiver.records)
            for _ in range(3):
                states = _state(_current(sender, receiver)), _state(_current(receiver, sender))
                message, is_sealed = _seal(sender, receiver, b"more")
                sealed[states[0]] += is_sealed
                opened[states[1]] += _open(receiver, sender, message)
            sender.records, receiver.records = saved
    assert {state for state, count in sealed.items() if count} == _REPEATING
    assert {state for state, count in opened.items() if count} >= _REPEATING - {"NoHeaderReceived"}


def test_a_lost_message_does_not_stop_resting() -> None:
    one, other = pair()
    for _ in range(5):  # until the header is complete
        other.decrypt(one, one.encrypt(other, b"text"))
    lost = one.encrypt(other, b"lost")
    assert not _open(other, one, one.encrypt(other, b"jump"))
    assert all(_open(other, one, _seal(one, other, b"text")[0]) for _ in range(1_990))
    assert not all(_open(other, one, _seal(one, other, b"text")[0]) for _ in range(20))
    with pytest.raises(tr.InvalidMessage):  # its key is too old; the seed is still there
        other.decrypt(one, lost)


@settings(max_examples=300, deadline=None)
@given(
    answers=st.integers(0, 60),
    position=st.integers(0, 5000),
    patch=st.binary(max_size=60),
    cut=st.booleans(),
)
def test_a_damaged_session_is_corrupt_in_both_forms(
    answers: int, position: int, patch: bytes, *, cut: bool
) -> None:
    data = _SESSIONS[answers % len(_SESSIONS)]
    position %= len(data)
    damaged = data[:position] + patch + (b"" if cut else data[position + len(patch) :])
    try:
        decoded = stored.decode(damaged)
    except tr.CorruptRecord:
        with pytest.raises(tr.CorruptRecord):
            resting.restore(damaged)
        return
    restored = resting.restore(damaged)
    assert stored.encode(decoded) == damaged
    assert restored == decoded or (isinstance(restored, Resting) and restored.to_bytes() == damaged)


def _sessions() -> list[bytes]:
    one, other = pair()
    found = []
    for turn in range(110):
        sender, receiver = (one, other) if turn % 2 == 0 else (other, one)
        message = sender.encrypt(receiver, b"text")
        if turn % 7:
            receiver.decrypt(sender, message)
        found.append(_current(receiver, sender))
    return found


_SESSIONS = _sessions()
