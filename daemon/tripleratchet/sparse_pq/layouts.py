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
    chunks, of how many those would be, and which messages move the state on."""

    says: int | None
    is_counted: bool
    start: int
    end: int
    size: int
    chunks: int | None
    heeds: frozenset[int]


def _counted(
    says: int, before: int, length: int, after: int, chunks: int | None, *heeds: int
) -> _Fields:
    start = _COUNTER_SIZE + before
    end = start + length
    return _Fields(says, True, start, end, end + after, chunks, frozenset(heeds))


def _plain(says: int | None, size: int, chunks: int | None, *heeds: int) -> _Fields:
    return _Fields(says, False, 0, 0, size, chunks, frozenset(heeds))


_STATES = (
    _plain(None, 0, None),  # KeysUnsampled
    _counted(HEADER, SEED_SIZE, HEADER_SIZE + MAC_SIZE, 0, None, CT1),  # KeysSampled
    _counted(EK, SEED_SIZE, EK_SIZE, 0, CT1_CHUNKS, CT1),  # HeaderSent
    _counted(EK_ACK, SEED_SIZE, EK_SIZE, CT1_SIZE, None, CT2),  # Ct1Received
    _plain(ACK, SEED_SIZE + CT1_SIZE, CT2_CHUNKS, CT2),  # EkSentCt1Received
    _plain(NONE, 0, HEADER_CHUNKS, HEADER),  # NoHeaderReceived
    _plain(None, HEADER_SIZE, None),  # HeaderReceived
    _counted(CT1, HEADER_SIZE + _MESSAGE_SIZE, CT1_SIZE, 0, EK_CHUNKS, EK, EK_ACK),  # Ct1Sampled
    _counted(CT1, 0, CT1_SIZE, CT2_SIZE + MAC_SIZE, None, EK_ACK, ACK),  # EkReceivedCt1Sampled
    _plain(NONE, HEADER_SIZE + _MESSAGE_SIZE, EK_CHUNKS, EK, EK_ACK),  # Ct1Acknowledged
    _counted(CT2, 0, CT2_SIZE + MAC_SIZE, 0, None),  # Ct2Sampled
)
"""By state number (stored.py)."""


class Layout(NamedTuple):
    """Positions in the bytes around a stored state; `start` to `end` is the message whose chunks
    are sent, `prefix` how a message of this epoch begins."""

    pair: int
    fields: int
    start: int
    end: int
    says: int | None
    is_counted: bool
    is_heard: bool
    heeds: frozenset[int]
    prefix: bytes
    epoch: int
    counts: tuple[int, ...]
    size: int
    chunks: int | None

    def __repr__(self) -> str:
        return f"<layout, {self.size} bytes and chunks>"


def lay_out(numbers: bytes, at: int, skipped: tuple[int, ...] | None = None) -> Layout | None:
    """The layout of the state that begins at `at` with `numbers`, with so many skipped keys in its
    pairs. None where its next message cannot be written over. Raises CorruptRecord."""
    shape = stored.shape(numbers) if skipped is None else stored.shape(numbers, skipped)
    if shape.pair is None:  # an epoch that nothing was sent in: rare
        return None
    state, fields = _STATES[shape.number], at + shape.fields
    return Layout(
        pair=at + shape.pair,
        fields=fields,
        start=fields + state.start,
        end=fields + state.end,
        says=None if shape.flags == NEGOTIATING | OPTIONAL else state.says,
        is_counted=state.is_counted,
        is_heard=not shape.flags & NEGOTIATING,
        heeds=state.heeds,
        prefix=bytes((VERSION,)) + varint(shape.epoch),
        epoch=shape.epoch,
        counts=tuple(at + count for count in shape.counts),
        size=fields + state.size,
        chunks=state.chunks,
    )


_usual = lru_cache(4096)(lay_out)  # a few for each epoch that a process's sessions are in


def locate(data: bytes, at: int) -> Layout | None:
    """The layout of the state from `at` to the end of `data`, which is checked as a decoder would.
    None as in lay_out, and where its header is not made yet. Raises CorruptRecord."""
    numbers = data[at : at + stored.NUMBERS_SIZE]
    if len(numbers) < stored.NUMBERS_SIZE:
        raise CorruptRecord("post-quantum state is truncated")
    layout = _usual(numbers, at)
    if layout is None:
        return None
    for count in layout.counts:
        if data[count : count + 2] != stored.NONE_KEPT:
            layout = lay_out(numbers, at, stored.count_kept(data, numbers, at))
            break
    if layout is None or (layout.says == HEADER and len(data) < layout.size):
        return None
    if layout.chunks is not None:
        stored.check_chunks(data, layout.size, layout.chunks)
    elif len(data) != layout.size:
        raise CorruptRecord("post-quantum state has another length than it says")
    return layout
