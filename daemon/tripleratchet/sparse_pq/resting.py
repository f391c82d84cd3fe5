"""A post-quantum ratchet left as it was stored, for messages that change a few of its bytes.

Nearly every message moves one key chain, and counts a chunk that is sent or adds one that has come.
Those are written over in the stored bytes, without taking the rest apart:

    head | .. the pair of epoch - 1: u32 sent | send | u32 received | receive ..
                                     ^ send()          ^ receive()
         | the state's fields: u32 counter .. | received chunks
                               ^ send()         ^ receive()

Whatever else a message does is SparseRatchet's, on the decoded state; so both give the same bytes
(tests/property/test_sparse_histories.py). Source: stored.py, whose form and limits these are.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ..keys import Random, hidden
from ..primitives import hkdf_pair
from ..wire import varint
from . import erasure, stored
from .chains import SENDING_SIZE, STEP
from .erasure import Encoder
from .layouts import Layout, locate
from .limits import MAX_INDEX, MAX_KEPT_KEYS
from .ratchet import SparseRatchet
from .wire import build, parse_content

_STEP = struct.Struct(">I32s")
_COUNTER_SIZE = 4


class Resting(NamedTuple):
    """The stored bytes, where what is in them, and, once it has been needed, what makes the chunks
    that are sent."""

    data: bytes
    layout: Layout
    chunks: Encoder | None = None

    def __repr__(self) -> str:
        return hidden(self)

    def to_bytes(self) -> bytes:
        """At rest: holds keys, so it must be sealed before it is stored."""
        return self.data

    def decoded(self) -> SparseRatchet:
        """The ratchet itself."""
        return SparseRatchet.from_bytes(self.data)

    def send(self, random: Random) -> tuple[Resting | SparseRatchet, bytes, bytes | None]:
        """As SparseRatchet.send."""
        data, layout, chunks = self
        pair, fields = layout.pair, layout.fields
        index, send = _STEP.unpack_from(data, pair)
        if layout.says is None or index >= MAX_INDEX:
            following, wire, its_key = self.decoded().send(random)
            return rest(following), wire, its_key
        number, piece, counted = 0, b"", b""
        if layout.is_counted:
            number = int.from_bytes(data[fields : fields + _COUNTER_SIZE], "big")
            chunks = chunks or erasure.encoder(data[layout.start : layout.end])
            piece = chunks.chunk(number)
            counted = (number + 1).to_bytes(_COUNTER_SIZE, "big")
        index += 1
        send, key = hkdf_pair(None, send, index.to_bytes(_COUNTER_SIZE, "big") + STEP)
        parts = (
            data[:pair],
            _STEP.pack(index, send),
            data[pair + SENDING_SIZE : fields],
            counted,
            data[fields + len(counted) :],
        )
        message = build(layout.epoch, index, layout.says, number, piece)
        return Resting(b"".join(parts), layout, chunks), message, key

    def receive(
        self, wire: bytes, max_jump: int
    ) -> tuple[Resting | SparseRatchet | None, bytes | None]:
        """As SparseRatchet.receive."""
        data, layout, chunks = self
        received = layout.pair + SENDING_SIZE
        index, receive = _STEP.unpack_from(data, received)
        end, index = received + SENDING_SIZE, index + 1
        after = None
        if index <= MAX_INDEX and _may_step(layout, data[end : end + 6], index):
            after = _after_chain(data, layout, wire, index, end)
        if after is None:
            following, its_key = self.decoded().receive(wire, max_jump)
            return None if following is None else rest(following), its_key
        receive, key = hkdf_pair(None, receive, index.to_bytes(_COUNTER_SIZE, "big") + STEP)
        parts = (data[:received], _STEP.pack(index, receive), after)
        return Resting(b"".join(parts), layout, chunks), key


def _may_step(layout: Layout, kept: bytes, index: int) -> bool:
    """Whether nothing else is due: the end of negotiating, or dropping the oldest skipped key.
    `kept` is the count of those and the oldest one's index."""
    if kept[:2] == stored.NONE_KEPT:
        return layout.is_heard
    return layout.is_heard and int.from_bytes(kept[2:], "big") >= index - MAX_KEPT_KEYS


def _after_chain(data: bytes, layout: Layout, wire: bytes, index: int, at: int) -> bytes | None:
    """What comes after the chain, once the message of this epoch and index is taken in. None for
    another message, and for one that moves the state on."""
    start = layout.prefix + varint(index)
    if not wire.startswith(start):
        return None
    kind, number, piece = parse_content(wire, len(start))
    if kind not in layout.heeds:
        return data[at:]
    chunks_at, needed = layout.size, layout.chunks
    if kind not in layout.gathers or needed is None or number >= needed:
        return None
    bitmap, parity = stored.CHUNKS_HEAD.unpack_from(data, chunks_at)
    systematic = int.from_bytes(bitmap, "big")
    # The usual chunk goes to the end; one out of order, a repeated or the last one does not.
    if parity or systematic >> number or systematic.bit_count() + 1 >= needed:
        return None
    head = stored.CHUNKS_HEAD.pack((systematic | 1 << number).to_bytes(len(bitmap), "big"), 0)
    return b"".join((data[at:chunks_at], head, data[chunks_at + len(head) :], piece))


def restore(data: bytes) -> Resting | SparseRatchet:
    """What to_bytes wrote, decoded only where its next message does more than resting allows.
    Raises CorruptRecord for the same bytes as SparseRatchet.from_bytes."""
    layout = locate(data)
    return SparseRatchet.from_bytes(data) if layout is None else Resting(data, layout)


def rest(ratchet: SparseRatchet) -> Resting | SparseRatchet:
    """The same ratchet as its bytes, where its next message may leave most of them alone."""
    return restore(ratchet.to_bytes()) if ratchet.repeats else ratchet
