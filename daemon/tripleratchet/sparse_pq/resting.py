"""A post-quantum ratchet left as it was stored, for messages that change a few of its bytes.

In one direction nearly every message moves one key chain and a chunk counter, and nothing else.
Those are written over in the stored bytes, without taking the rest apart:

    head | .. the pair of epoch - 1: u32 sent | send | u32 received | receive .. | u32 counter ..
                                     ^ send()          ^ receive()                 ^ send()

Whatever else a message does is SparseRatchet's, on the decoded state; so both give the same bytes
(tests/property/test_sparse_histories.py). Source: stored.py, whose form and limits these are.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import CorruptRecord
from ..kdf import hkdf_pair
from ..keys import Random, hidden
from . import stored
from .chains import KEPT_AT, SENDING_SIZE, STEP
from .ct_side import EK_CHUNKS, Ct1Sampled, Ct2Sampled, EkReceivedCt1Sampled, HeaderReceived
from .ek_side import CT1_CHUNKS, Ct1Received, HeaderSent, KeysSampled, KeysUnsampled
from .erasure import chunk
from .limits import (
    CT1_SIZE,
    CT2_SIZE,
    EK_SIZE,
    HEADER_SIZE,
    MAC_SIZE,
    MAX_INDEX,
    SEED_SIZE,
    VERSION,
)
from .ratchet import NEGOTIATING, OPTIONAL, SparseRatchet
from .wire import ACK, CT1, CT2, EK, EK_ACK, HEADER, build, parse_content, parse_prefix

_COUNTER, _KEY = 4, 32
_NO_KEY = (1, 0)
_FLAGS_AT, _FLAG_BITS = 1, 5
_MESSAGE_SIZE = 32


class _Repeating(NamedTuple):
    """A state that begins with its chunk counter: what it sends, where that message is, what else
    there is, and which messages would move it on. One that sends nothing yet has no counter."""

    says: int | None
    start: int
    end: int
    size: int
    chunks: int | None
    heeds: frozenset[int]


def _repeating(
    says: int, before: int, length: int, after: int, chunks: int | None, *heeds: int
) -> _Repeating:
    start = _COUNTER + before
    end = start + length
    return _Repeating(says, start, end, end + after, chunks, frozenset(heeds))


_STATES = {
    0: _Repeating(None, 0, 0, 0, None, frozenset()),
    6: _Repeating(None, 0, 0, HEADER_SIZE, None, frozenset()),
    1: _repeating(HEADER, SEED_SIZE, HEADER_SIZE + MAC_SIZE, 0, None, CT1),
    2: _repeating(EK, SEED_SIZE, EK_SIZE, 0, CT1_CHUNKS, CT1),
    3: _repeating(EK_ACK, SEED_SIZE, EK_SIZE, CT1_SIZE, None, CT2),
    7: _repeating(CT1, HEADER_SIZE + _MESSAGE_SIZE, CT1_SIZE, 0, EK_CHUNKS, EK, EK_ACK),
    8: _repeating(CT1, 0, CT1_SIZE, CT2_SIZE + MAC_SIZE, None, EK_ACK, ACK),
    10: _repeating(CT2, 0, CT2_SIZE + MAC_SIZE, 0, None),
}
"""By state number (stored.py)."""

_TYPES = (
    *(KeysUnsampled, KeysSampled, HeaderSent, Ct1Received),
    *(HeaderReceived, Ct1Sampled, EkReceivedCt1Sampled, Ct2Sampled),
)
"""The same states, decoded."""


class Resting(NamedTuple):
    """The stored bytes, and where their pair of epoch - 1 and their state begin."""

    data: bytes
    epoch: int
    pair: int
    state_at: int
    state: _Repeating

    def __repr__(self) -> str:
        return hidden(self)

    def to_bytes(self) -> bytes:
        """At rest: holds keys, so it must be sealed before it is stored."""
        return self.data

    def send(self, random: Random) -> tuple[Resting | SparseRatchet, bytes, bytes | None]:
        """As SparseRatchet.send."""
        data, epoch, pair, state_at, state = self
        index = int.from_bytes(data[pair : pair + _COUNTER], "big") + 1
        is_optional = data[_FLAGS_AT] >> _FLAG_BITS == NEGOTIATING | OPTIONAL
        if index > MAX_INDEX or is_optional or state.says is None:
            return self._decoded().send(random)
        body = state_at + _COUNTER
        number = int.from_bytes(data[state_at:body], "big")
        piece = chunk(data[state_at + state.start : state_at + state.end], number)
        counter = index.to_bytes(_COUNTER, "big")
        key_at, rest = pair + _COUNTER, pair + SENDING_SIZE
        following, key = hkdf_pair(None, data[key_at:rest], counter + STEP)
        count = (number + 1).to_bytes(_COUNTER, "big")
        data = b"".join((data[:pair], counter, following, data[rest:state_at], count, data[body:]))
        message = build(epoch, index, state.says, number, piece)
        return Resting(data, epoch, pair, state_at, state), message, key

    def receive(
        self, wire: bytes, max_jump: int
    ) -> tuple[Resting | SparseRatchet | None, bytes | None]:
        """As SparseRatchet.receive."""
        data, epoch, pair, state_at, state = self
        if not wire:
            return self._decoded().receive(wire, max_jump)
        version, its_epoch, index, at = parse_prefix(wire)
        received = pair + SENDING_SIZE
        key_at, end = received + _COUNTER, pair + KEPT_AT
        counter = index.to_bytes(_COUNTER, "big")
        if (
            version != VERSION
            or its_epoch != epoch
            or index != int.from_bytes(data[received:key_at], "big") + 1
            or data[end : end + 2] != stored.NONE_KEPT
            or parse_content(wire, at)[0] in state.heeds
        ):
            return self._decoded().receive(wire, max_jump)
        following, key = hkdf_pair(None, data[key_at:end], counter + STEP)
        heard = data[_FLAGS_AT] & ~(NEGOTIATING << _FLAG_BITS)
        data = b"".join(
            (data[:1], bytes((heard,)), data[2:received], counter, following, data[end:])
        )
        return Resting(data, epoch, pair, state_at, state), key

    def _decoded(self) -> SparseRatchet:
        return SparseRatchet.from_bytes(self.data)


def restore(data: bytes) -> Resting | SparseRatchet:
    """What to_bytes wrote, decoded only where its state is none of the repeating ones. Raises
    CorruptRecord for the same bytes as SparseRatchet.from_bytes."""
    state = _STATES.get(data[_FLAGS_AT] & 15) if len(data) > _FLAGS_AT else None
    if state is None:
        return SparseRatchet.from_bytes(data)
    epoch, pair, at = stored.locate(data)
    end = at + state.size
    if pair is None or (state.says == HEADER and len(data) < end):  # rare, or not made yet
        return SparseRatchet.from_bytes(data)
    if state.chunks is not None:
        stored.check_chunks(data, end, state.chunks)
    elif len(data) != end:
        raise CorruptRecord("post-quantum state has another length than it says")
    return Resting(data, epoch, pair, at, state)


def rest(ratchet: SparseRatchet) -> Resting | SparseRatchet:
    """The same ratchet as its bytes, where its next message may leave most of them alone."""
    return restore(ratchet.to_bytes()) if isinstance(ratchet.state, _TYPES) else ratchet
