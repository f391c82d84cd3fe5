"""Every state against every kind of message and every relation of epochs."""

from __future__ import annotations

import pytest
from tripleratchet import InvalidMessage
from tripleratchet.sparse_pq import states, wire
from tripleratchet.sparse_pq.states import State
from tripleratchet.sparse_pq.wire import Kind

from tests.harness.sparse import End, ends, every_state, exchange

_STATES = every_state()
_NAMES = [
    *("KeysUnsampled", "KeysSampled", "HeaderSent", "Ct1Received", "EkSentCt1Received"),
    *("NoHeaderReceived", "HeaderReceived", "Ct1Sampled", "EkReceivedCt1Sampled"),
    *("Ct1Acknowledged", "Ct2Sampled"),
]
_SENDS = {
    "KeysUnsampled": (Kind.HEADER, "KeysSampled"),
    "KeysSampled": (Kind.HEADER, "KeysSampled"),
    "HeaderSent": (Kind.EK, "HeaderSent"),
    "Ct1Received": (Kind.EK_ACK, "Ct1Received"),
    "EkSentCt1Received": (Kind.ACK, "EkSentCt1Received"),
    "NoHeaderReceived": (Kind.NONE, "NoHeaderReceived"),
    "HeaderReceived": (Kind.CT1, "Ct1Sampled"),
    "Ct1Sampled": (Kind.CT1, "Ct1Sampled"),
    "EkReceivedCt1Sampled": (Kind.CT1, "EkReceivedCt1Sampled"),
    "Ct1Acknowledged": (Kind.NONE, "Ct1Acknowledged"),
    "Ct2Sampled": (Kind.CT2, "Ct2Sampled"),
}
_ADVANCES = {
    ("KeysSampled", Kind.CT1): "HeaderSent",
    ("Ct1Received", Kind.CT2): "EkSentCt1Received",
    ("Ct1Sampled", Kind.EK_ACK): "Ct1Acknowledged",
    ("EkReceivedCt1Sampled", Kind.EK_ACK): "Ct2Sampled",
    ("EkReceivedCt1Sampled", Kind.ACK): "Ct2Sampled",
}
"""What one message of the state's own epoch changes, where its chunk does not complete anything."""
_COLLECTS = {
    ("HeaderSent", Kind.CT1),
    ("EkSentCt1Received", Kind.CT2),
    ("NoHeaderReceived", Kind.HEADER),
    ("Ct1Sampled", Kind.EK),
    ("Ct1Acknowledged", Kind.EK),
    ("Ct1Acknowledged", Kind.EK_ACK),
}


def test_all_states_were_reached() -> None:
    assert sorted(_STATES) == sorted(_NAMES)


@pytest.mark.parametrize("name", _NAMES)
def test_what_a_state_sends(name: str) -> None:
    end = End(_STATES[name].stored, _STATES[name].random)
    epoch = end.epoch
    message = end.send()
    _, sent_epoch, _, at = wire.parse_prefix(message)
    assert sent_epoch == epoch == end.epoch
    assert (wire.parse_content(message, at)[0], end.state) == _SENDS[name]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("name", _NAMES)
def test_a_message_of_the_same_epoch(name: str, kind: Kind) -> None:
    state = _STATES[name].ratchet.state
    following, secret = _receive(state, 0, kind, chunk_index=65_535)
    assert secret is None
    if (name, kind) in _COLLECTS:
        assert (type(following).__name__, following != state) == (name, True)
    elif (name, kind) in _ADVANCES:
        assert type(following).__name__ == _ADVANCES[name, kind]
    else:
        assert following == state


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("name", _NAMES)
def test_a_message_of_an_older_epoch_changes_nothing(name: str, kind: Kind) -> None:
    state = _STATES[name].ratchet.state
    assert _receive(state, -1, kind) == (state, None)


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("ahead", [1, 2, 2**40])
@pytest.mark.parametrize("name", _NAMES)
def test_a_message_of_a_later_epoch(name: str, ahead: int, kind: Kind) -> None:
    state = _STATES[name].ratchet.state
    if name == "Ct2Sampled" and ahead == 1:
        following, secret = _receive(state, ahead, kind)
        assert (type(following).__name__, secret) == ("KeysUnsampled", None)
        assert following.epoch == state.epoch + 1
    else:
        with pytest.raises(InvalidMessage, match="epoch"):
            _receive(state, ahead, kind)


def _receive(
    state: State, ahead: int, kind: Kind, chunk_index: int = 0
) -> tuple[State, bytes | None]:
    chunk = b"" if kind in (Kind.NONE, Kind.ACK) else bytes(32)
    return states.receive(state, state.epoch + ahead, (kind, chunk_index, chunk))


@pytest.mark.parametrize("name", _NAMES)
def test_no_message_has_a_key_in_an_epoch_to_come(name: str) -> None:
    end = End(_STATES[name].stored, _STATES[name].random)
    for ahead in (2, 5):
        with pytest.raises(InvalidMessage):
            end.receive(wire.build(end.epoch + ahead, 1, Kind.NONE, 0, b""))


def _poisoned(kind: Kind, seed: int) -> tuple[End, End, bytes]:
    """A run with chunk 1 of this kind replaced in an authentic message, up to the first refusal;
    sender and receiver of the refused message, and the right chunk."""
    one, other = ends(seed)
    right = b""
    for _ in range(200):
        for sender, receiver in ((one, other), (other, one)):
            message = sender.send()
            _, epoch, index, at = wire.parse_prefix(message)
            sent, chunk_index, chunk = wire.parse_content(message, at)
            if (sent, chunk_index) == (kind, 1) and not right:
                right = chunk
                message = wire.build(epoch, index, sent, chunk_index, bytes(32))
            try:
                receiver.receive(message)
            except InvalidMessage:
                return sender, receiver, right
    raise AssertionError("the poison was never noticed")


@pytest.mark.parametrize(("kind", "seed"), [(Kind.HEADER, 1), (Kind.EK, 3), (Kind.CT2, 4)])
def test_a_poisoned_chunk_is_healed_by_the_right_one_for_its_index(kind: Kind, seed: int) -> None:
    sender, receiver, right = _poisoned(kind, seed)
    assert right
    epoch = receiver.epoch
    for _ in range(3):  # whatever would complete the message is refused, again and again
        with pytest.raises(InvalidMessage):
            receiver.receive(sender.send())
    index = wire.parse_prefix(sender.send())[2]
    receiver.receive(wire.build(epoch, index, kind, 1, right))
    for _ in range(120):
        exchange(sender, receiver)
        exchange(receiver, sender)
    assert receiver.epoch > epoch


def test_a_poisoned_ct1_is_noticed_at_its_mac_and_ends_the_session() -> None:
    sender, receiver, _ = _poisoned(Kind.CT1, 2)
    assert (receiver.state, sender.state) == ("EkSentCt1Received", "Ct2Sampled")
    for _ in range(20):
        with pytest.raises(InvalidMessage, match="not the peer's"):
            receiver.receive(sender.send())
        exchange(receiver, sender)  # the other direction goes on
