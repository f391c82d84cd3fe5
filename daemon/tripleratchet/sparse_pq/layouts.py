"""Where, in stored bytes, a post-quantum ratchet keeps what its next message changes.

Most states repeat themselves: they say the next chunk of one message until the peer moves them on.
Then a message takes a key from the pair of epoch - 1 and counts a chunk, and nothing else. Knows
what each state says and heeds (as states.py does), and no move.
Source: stored.py, whose form and limits these are.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..errors import CorruptRecord
from ..wire import varint
from . import stored
from .ct_side import EK_CHUNKS, HEADER_CHUNKS
from .ek_side import CT1_CHUNKS, CT2_CHUNKS
from .limits import CT1_SIZE, CT2_SIZE, EK_SIZE, HEADER_SIZE, MAC_SIZE, SEED_SIZE, VERSION
from .ratchet import NEGOTIATING, OPTIONAL
from .wire import ACK, CT1, CT2, EK, EK_ACK, HEADER, NONE

_COUNTER_SIZE, _MESSAGE_SIZE = 4, 32


class _Fields(NamedTuple):
    """A state's own fields: what it says (None: something that has to be made first), the chunk
    counter they may begin with, the message that chunks are of, how long they are without received
    chunks, of how many those would be, which messages do something to the state, and which of them
    no more than add a chunk."""

    says: int | None
    is_counted: bool
    start: int
    end: int
    size: int
    chunks: int | None = None
    heeds: frozenset[int] = frozenset()
    gathers: frozenset[int] = frozenset()

    def moved_by(self, *kinds: int) -> _Fields:
        """With messages that move it on."""
        return self._replace(heeds=self.heeds | set(kinds))

    def gathering(self, chunks: int, *kinds: int) -> _Fields:
        """With messages whose chunks it gathers, that many for a whole."""
        return self._replace(chunks=chunks, heeds=self.heeds | set(kinds), gathers=frozenset(kinds))


def _counted(says: int, before: int, length: int, after: int = 0) -> _Fields:
    start = _COUNTER_SIZE + before
    end = start + length
    return _Fields(says, True, start, end, end + after)


def _plain(says: int | None, size: int) -> _Fields:
    return _Fields(says, False, 0, 0, size)


_STATES = (
    _plain(None, 0),  # KeysUnsampled
    _counted(HEADER, SEED_SIZE, HEADER_SIZE + MAC_SIZE).moved_by(CT1),  # KeysSampled
    _counted(EK, SEED_SIZE, EK_SIZE).gathering(CT1_CHUNKS, CT1),  # HeaderSent
    _counted(EK_ACK, SEED_SIZE, EK_SIZE, CT1_SIZE).moved_by(CT2),  # Ct1Received
    _plain(ACK, SEED_SIZE + CT1_SIZE).gathering(CT2_CHUNKS, CT2),  # EkSentCt1Received
    _plain(NONE, 0).gathering(HEADER_CHUNKS, HEADER),  # NoHeaderReceived
    _plain(None, HEADER_SIZE),  # HeaderReceived
    _counted(CT1, HEADER_SIZE + _MESSAGE_SIZE, CT1_SIZE)  # Ct1Sampled
    .gathering(EK_CHUNKS, EK)
    .moved_by(EK_ACK),
    _counted(CT1, 0, CT1_SIZE, CT2_SIZE + MAC_SIZE).moved_by(EK_ACK, ACK),  # EkReceivedCt1Sampled
    _plain(NONE, HEADER_SIZE + _MESSAGE_SIZE).gathering(EK_CHUNKS, EK, EK_ACK),  # Ct1Acknowledged
    _counted(CT2, 0, CT2_SIZE + MAC_SIZE),  # Ct2Sampled
)
"""By state number (stored.py)."""


class Layout(NamedTuple):
    """Positions in a stored ratchet, and what its state does; `start` to `end` is the message whose
    chunks are sent, `prefix` how a message of this epoch begins."""

    pair: int
    fields: int
    start: int
    end: int
    says: int | None
    is_counted: bool
    is_heard: bool
    heeds: frozenset[int]
    gathers: frozenset[int]
    prefix: bytes
    epoch: int
    counts: tuple[int, ...]
    size: int
    chunks: int | None

    def __repr__(self) -> str:
        return f"<layout, {self.size} bytes and chunks>"


def lay_out(numbers: bytes, skipped: tuple[int, ...] | None = None) -> Layout | None:
    """The layout of a ratchet whose bytes begin with `numbers`, with so many skipped keys in its
    pairs. None where its next message cannot be written over. Raises CorruptRecord."""
    shape = stored.shape(numbers) if skipped is None else stored.shape(numbers, skipped)
    if shape.pair is None or shape.flags == NEGOTIATING | OPTIONAL:
        return None  # an epoch that nothing was sent in, or no keys yet: both are rare
    state, fields = _STATES[shape.number], shape.fields
    return Layout(
        pair=shape.pair,
        fields=fields,
        start=fields + state.start,
        end=fields + state.end,
        says=state.says,
        is_counted=state.is_counted,
        is_heard=not shape.flags & NEGOTIATING,
        heeds=state.heeds,
        gathers=state.gathers,
        prefix=bytes((VERSION,)) + varint(shape.epoch),
        epoch=shape.epoch,
        counts=shape.counts,
        size=fields + state.size,
        chunks=state.chunks,
    )


_usual = lru_cache(1024)(lay_out)  # a few for each epoch that a process's sessions are in


def locate(data: bytes) -> Layout | None:
    """The layout of stored bytes, which are checked as a decoder would. None as in lay_out, and
    where the header is not made yet. Raises CorruptRecord."""
    numbers = data[: stored.NUMBERS_SIZE]
    if len(numbers) < stored.NUMBERS_SIZE:
        raise CorruptRecord("post-quantum state is truncated")
    layout = _usual(numbers)
    if layout is None:
        return None
    for count in layout.counts:
        if data[count : count + 2] != stored.NONE_KEPT:
            layout = lay_out(numbers, stored.count_kept(data, numbers))
            break
    if layout is None or (layout.says == HEADER and len(data) < layout.size):
        return None
    if layout.chunks is not None:
        stored.check_chunks(data, layout.size, layout.chunks)
    elif len(data) != layout.size:
        raise CorruptRecord("post-quantum state has another length than it says")
    return layout
