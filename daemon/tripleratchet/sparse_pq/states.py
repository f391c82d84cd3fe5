"""The state machine as a whole: what each state sends, and what each message does to it.

    odd epochs    initiator: EK side    responder: CT side        even epochs: the reverse
    start         KeysUnsampled         NoHeaderReceived

A message of an older epoch changes nothing; one of the next epoch is only legal in Ct2Sampled. A
type that a state does not wait for changes nothing either: messages are late, repeated and
reordered. Knows no key chain and no wire bytes. Source: facts/spqr.md sections 3.2 and 3.3.
"""

from __future__ import annotations

from typing import assert_never

from ..errors import InvalidMessage
from ..keys import Random
from . import authenticator
from .ct_side import (
    Ct1Acknowledged,
    Ct1Sampled,
    Ct2Sampled,
    EkReceivedCt1Sampled,
    HeaderReceived,
    NoHeaderReceived,
)
from .ek_side import (
    Completed,
    Ct1Received,
    EkSentCt1Received,
    HeaderSent,
    KeysSampled,
    KeysUnsampled,
)
from .erasure import Chunks, chunk
from .wire import ACK, CT1, CT2, EK, EK_ACK, HEADER, NONE, Content

State = (
    KeysUnsampled
    | KeysSampled
    | HeaderSent
    | Ct1Received
    | EkSentCt1Received
    | NoHeaderReceived
    | HeaderReceived
    | Ct1Sampled
    | EkReceivedCt1Sampled
    | Ct1Acknowledged
    | Ct2Sampled
)


Sent = tuple[State, int, int, bytes, bytes | None]
"""The next state, what to say (type, chunk counter, chunk or nothing), and perhaps a secret."""


def start(auth_key: bytes, *, is_initiator: bool) -> State:
    """The state at the start of a session (auth key: 32 bytes)."""
    auth = authenticator.start(auth_key)
    return KeysUnsampled(1, auth) if is_initiator else NoHeaderReceived(1, auth, Chunks())


def repeats(state: State) -> bool:
    """Whether it goes on saying the same until it is moved on: not where something is to be made
    first."""
    match state:
        case KeysUnsampled() | HeaderReceived():
            return False
        case KeysSampled():
            return bool(state.header)
        case _:
            return True


def send(state: State, random: Random) -> Sent:
    """What this state says with the next message."""
    match state:
        case KeysSampled():
            following, data = state.send()
            return following, HEADER, state.counter, data, None
        case HeaderSent():
            return state.sent(), EK, state.counter, chunk(state.ek, state.counter), None
        case Ct1Received():
            return state.sent(), EK_ACK, state.counter, chunk(state.ek, state.counter), None
        case Ct1Sampled() | EkReceivedCt1Sampled():
            return state.sent(), CT1, state.counter, chunk(state.ct1, state.counter), None
        case Ct2Sampled():
            return state.sent(), CT2, state.counter, chunk(state.ct2, state.counter), None
        case EkSentCt1Received():
            return state, ACK, 0, b"", None
        case NoHeaderReceived() | Ct1Acknowledged():
            return state, NONE, 0, b"", None
        case KeysUnsampled():
            return send(state.sample(random), random)
        case HeaderReceived():
            sampled, secret = state.encapsulate(random)
            return (*send(sampled, random)[:4], secret)
        case _:
            assert_never(state)


def receive(state: State, epoch: int, content: Content) -> tuple[State, bytes | None]:
    """The state after a message of this epoch, and perhaps a secret.

    Raises InvalidMessage: an epoch ahead of its time, or a message completed to an unauthentic one.
    """
    if epoch < state.epoch:
        return state, None
    if epoch > state.epoch:
        if isinstance(state, Ct2Sampled) and epoch == state.epoch + 1:
            return state.next_epoch(), None
        raise InvalidMessage("post-quantum epoch out of range")
    following = _advance(state, *content)
    if isinstance(following, Completed):
        waiting = NoHeaderReceived(epoch + 1, following.auth, Chunks())
        return waiting, following.secret
    return following, None


def _advance(state: State, kind: int, index: int, data: bytes) -> State | Completed:
    match state:
        case KeysUnsampled() | HeaderReceived() | Ct2Sampled():
            return state
        case KeysSampled() | HeaderSent():
            return state.ct1(index, data) if kind == CT1 else state
        case Ct1Received() | EkSentCt1Received():
            return state.ct2(index, data) if kind == CT2 else state
        case NoHeaderReceived():
            return state.header(index, data) if kind == HEADER else state
        case Ct1Sampled():
            if kind == EK:
                return state.ek(index, data)
            return state.ek_ack(index, data) if kind == EK_ACK else state
        case EkReceivedCt1Sampled():
            return state.ack() if kind in (EK_ACK, ACK) else state
        case Ct1Acknowledged():
            return state.ek(index, data) if kind in (EK, EK_ACK) else state
        case _:
            assert_never(state)
