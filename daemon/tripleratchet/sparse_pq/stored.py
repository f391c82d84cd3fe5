"""A post-quantum ratchet at rest, inside a session record.

    01 | u8 flags, state number | u32 epoch | u8 epoch - first, epoch - sending | u8 chain pairs
       | auth (64) | next root (32) | the pairs | the state's own fields
    pair    [u32 sent | send (32)] if still sent on | u32 received | receive (32)
            | u16 skipped | skipped keys
    chunks  5-byte bitmap of systematic ones | u8 parity indexes, u16 each | data

Numbers are big-endian, two in one byte have four bits each; the first byte is the form's version.
Fields of known size have no length; chunks run to the end. One state has one encoding: what
decodes encodes to the same bytes. Knows no message.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any, NamedTuple, assert_never

from ..errors import CorruptRecord
from .chains import ENDED, KEPT_AT, KEPT_SIZE, SENDING_SIZE, Chains
from .ct_side import (
    EK_CHUNKS,
    HEADER_CHUNKS,
    Ct1Acknowledged,
    Ct1Sampled,
    Ct2Sampled,
    EkReceivedCt1Sampled,
    HeaderReceived,
    NoHeaderReceived,
)
from .ek_side import (
    CT1_CHUNKS,
    CT2_CHUNKS,
    Ct1Received,
    EkSentCt1Received,
    HeaderSent,
    KeysSampled,
    KeysUnsampled,
)
from .erasure import Chunks
from .limits import CHUNK_SIZE, HEADER_SIZE, MAC_SIZE, MAX_KEPT_KEYS
from .states import State

_FORM = 1
_MAX_CHAINS = 4
_HEAD = struct.Struct(">BBIBB64s32s")
_NUMBERS = struct.Struct(">BBIBB")
_KEYS_SAMPLED = struct.Struct(">I64s")
_WHOLE_HEADER = HEADER_SIZE + MAC_SIZE
_HEADER_SENT = struct.Struct(">I64s1152s")
_CT1_RECEIVED = struct.Struct(">I64s1152s960s")
_EK_SENT = struct.Struct(">64s960s")
_CT1_SAMPLED = struct.Struct(">I64s32s960s")
_EK_RECEIVED = struct.Struct(">I960s160s")
_CT1_ACKNOWLEDGED = struct.Struct(">64s32s")
_CT2_SAMPLED = struct.Struct(">I160s")
_HEADER = struct.Struct(">64s")
_NOTHING = struct.Struct(">")
_BITMAP_SIZE = 5
CHUNKS_HEAD = struct.Struct(f"{_BITMAP_SIZE}sB")
"""What chunks begin with: the bitmap and the number of parity indexes."""
NONE_KEPT = bytes(2)
"""In place of a count of skipped keys."""


Stored = tuple[int, Chains, State]
"""What is at rest: the ratchet's flags, its chains and its state."""


def encode(flags: int, chains: Chains, state: State) -> bytes:
    """The bytes at rest; `flags` is the caller's, below 8."""
    number, fields = _encode_state(state)
    is_initiator, next_root, first, sending, pairs = chains
    epoch, auth = state[0], state[1]
    parts = [
        _HEAD.pack(
            _FORM,
            (flags << 1 | is_initiator) << 4 | number,
            epoch,
            epoch - first << 4 | epoch - sending,
            len(pairs),
            auth,
            next_root,
        )
    ]
    for at, pair in enumerate(pairs, first):
        part = pair if at >= sending else pair[SENDING_SIZE:]
        if len(pair) == KEPT_AT:
            parts += (part, NONE_KEPT)
        else:
            count = (len(pair) - KEPT_AT) // KEPT_SIZE
            split = len(part) - count * KEPT_SIZE
            parts += (part[:split], count.to_bytes(2, "big"), part[split:])
    parts.append(fields)
    return b"".join(parts)


def decode(data: bytes) -> Stored:
    """Undo encode. Raises CorruptRecord."""
    try:
        return _decode(data)
    except struct.error:
        raise CorruptRecord("post-quantum state is truncated") from None


class Shape(NamedTuple):
    """What a state's first bytes say: its number and flags, its epoch, and, from its beginning,
    where the pair of epoch - 1 (None: not sent on yet), each pair's count of skipped keys and the
    state's own fields are."""

    number: int
    flags: int
    epoch: int
    pair: int | None
    counts: tuple[int, ...]
    fields: int


NUMBERS_SIZE = _NUMBERS.size
"""The first bytes, which shape() takes."""


def shape(numbers: bytes, skipped: tuple[int, ...] = (0,) * _MAX_CHAINS) -> Shape:
    """The shape of a state with so many skipped keys in its pairs. Raises CorruptRecord."""
    form, kind, epoch, behind, count = _NUMBERS.unpack(numbers)
    first, sending = epoch - (behind >> 4), epoch - (behind & 15)
    _check_head(form, kind & 15, epoch, first, sending, count)
    pair, counts, at = None, [], _HEAD.size
    for position, keys in zip(range(first, first + count), skipped, strict=False):
        if position == sending == epoch - 1:
            pair = at
        at += KEPT_AT if position >= sending else KEPT_AT - SENDING_SIZE
        counts.append(at)
        at += len(NONE_KEPT) + keys * KEPT_SIZE
    return Shape(kind & 15, kind >> 5, epoch, pair, tuple(counts), at)


def count_kept(data: bytes, numbers: bytes) -> tuple[int, ...]:
    """How many skipped keys each pair has. Raises CorruptRecord."""
    kept: tuple[int, ...] = ()
    for pair in range(numbers[-1]):
        count_at = shape(numbers, (*kept, 0)).counts[pair]
        if data[count_at : count_at + 2] != NONE_KEPT:
            _decode_kept(data, count_at)
        kept += (int.from_bytes(data[count_at : count_at + 2], "big"),)
    return kept


def check_chunks(data: bytes, at: int, needed: int) -> None:
    """Raises CorruptRecord unless chunks of a message of `needed` fill `data` from `at` on."""
    head = data[at : at + _BITMAP_SIZE + 1]
    systematic = int.from_bytes(head[:_BITMAP_SIZE], "big")
    held = systematic.bit_count()
    is_plain = len(head) > _BITMAP_SIZE and head[_BITMAP_SIZE] == 0
    if is_plain and held < needed and not systematic >> needed:  # nearly always: no parity
        if len(data) - at - len(head) != held * CHUNK_SIZE:
            raise CorruptRecord("post-quantum chunks have another length than they say")
        return
    try:
        _decode_chunks(data, at, needed)
    except struct.error:
        raise CorruptRecord("post-quantum chunks are truncated") from None


def _check_head(form: int, number: int, epoch: int, first: int, sending: int, count: int) -> None:
    if form != _FORM or number >= len(_DECODERS):
        raise CorruptRecord("post-quantum state of an unknown form")
    if not (0 <= first <= sending < min(first + count, epoch) and count <= _MAX_CHAINS):
        raise CorruptRecord("post-quantum chains out of range")


def _decode(data: bytes) -> Stored:
    form, kind, epoch, behind, count, auth, next_root = _HEAD.unpack_from(data)
    flags, number = kind >> 4, kind & 15
    first, sending = epoch - (behind >> 4), epoch - (behind & 15)
    _check_head(form, number, epoch, first, sending, count)
    pairs, at = [], _HEAD.size
    for position in range(first, first + count):
        size = KEPT_AT if position >= sending else KEPT_AT - SENDING_SIZE
        end = at + size
        kept_at, pair = end + 2, data[at:end]
        if position < sending:
            pair = ENDED + pair
        at = kept_at
        if data[end:kept_at] != NONE_KEPT:
            kept, at = _decode_kept(data, end)
            pair += kept
        pairs.append(pair)
    chains = Chains(bool(flags & 1), next_root, first, sending, tuple(pairs))
    return flags >> 1, chains, _DECODERS[number](epoch, auth, data, at)


def _decode_kept(data: bytes, at: int) -> tuple[bytes, int]:
    start = at + len(NONE_KEPT)
    count = int.from_bytes(data[at:start], "big")
    end = start + count * KEPT_SIZE
    if not 0 < count <= MAX_KEPT_KEYS or end > len(data):
        raise CorruptRecord("post-quantum chains are truncated")
    return data[start:end], end


def _encode_state(state: State) -> tuple[int, bytes]:
    match state:
        case KeysUnsampled():
            return 0, b""
        case KeysSampled(_, _, seed, header, counter):
            return 1, _KEYS_SAMPLED.pack(counter, seed) + header
        case HeaderSent(_, _, seed, ek, counter, chunks):
            return 2, _HEADER_SENT.pack(counter, seed, ek) + _encode_chunks(chunks)
        case Ct1Received(_, _, seed, ek, counter, ct1):
            return 3, _CT1_RECEIVED.pack(counter, seed, ek, ct1)
        case EkSentCt1Received(_, _, seed, ct1, chunks):
            return 4, _EK_SENT.pack(seed, ct1) + _encode_chunks(chunks)
        case NoHeaderReceived(_, _, chunks):
            return 5, _encode_chunks(chunks)
        case HeaderReceived(_, _, header):
            return 6, header
        case Ct1Sampled(_, _, header, message, ct1, counter, chunks):
            return 7, _CT1_SAMPLED.pack(counter, header, message, ct1) + _encode_chunks(chunks)
        case EkReceivedCt1Sampled(_, _, ct1, counter, ct2):
            return 8, _EK_RECEIVED.pack(counter, ct1, ct2)
        case Ct1Acknowledged(_, _, header, message, chunks):
            return 9, _CT1_ACKNOWLEDGED.pack(header, message) + _encode_chunks(chunks)
        case Ct2Sampled(_, _, ct2, counter):
            return 10, _CT2_SAMPLED.pack(counter, ct2)
        case _:
            assert_never(state)


def _keys_unsampled(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    _whole(_NOTHING, data, at)
    return KeysUnsampled(epoch, auth)


def _keys_sampled(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    counter, seed = _KEYS_SAMPLED.unpack_from(data, at)
    header = data[at + _KEYS_SAMPLED.size :]
    if len(header) not in (0, _WHOLE_HEADER):
        raise CorruptRecord("post-quantum state has another length than it says")
    return KeysSampled(epoch, auth, seed, header, counter)


def _header_sent(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    counter, seed, ek = _HEADER_SENT.unpack_from(data, at)
    chunks = _decode_chunks(data, at + _HEADER_SENT.size, CT1_CHUNKS)
    return HeaderSent(epoch, auth, seed, ek, counter, chunks)


def _ct1_received(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    counter, seed, ek, ct1 = _whole(_CT1_RECEIVED, data, at)
    return Ct1Received(epoch, auth, seed, ek, counter, ct1)


def _ek_sent(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    seed, ct1 = _EK_SENT.unpack_from(data, at)
    chunks = _decode_chunks(data, at + _EK_SENT.size, CT2_CHUNKS)
    return EkSentCt1Received(epoch, auth, seed, ct1, chunks)


def _no_header_received(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    return NoHeaderReceived(epoch, auth, _decode_chunks(data, at, HEADER_CHUNKS))


def _header_received(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    (header,) = _whole(_HEADER, data, at)
    return HeaderReceived(epoch, auth, header)


def _ct1_sampled(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    counter, header, message, ct1 = _CT1_SAMPLED.unpack_from(data, at)
    chunks = _decode_chunks(data, at + _CT1_SAMPLED.size, EK_CHUNKS)
    return Ct1Sampled(epoch, auth, header, message, ct1, counter, chunks)


def _ek_received(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    counter, ct1, ct2 = _whole(_EK_RECEIVED, data, at)
    return EkReceivedCt1Sampled(epoch, auth, ct1, counter, ct2)


def _ct1_acknowledged(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    header, message = _CT1_ACKNOWLEDGED.unpack_from(data, at)
    chunks = _decode_chunks(data, at + _CT1_ACKNOWLEDGED.size, EK_CHUNKS)
    return Ct1Acknowledged(epoch, auth, header, message, chunks)


def _ct2_sampled(epoch: int, auth: bytes, data: bytes, at: int) -> State:
    counter, ct2 = _whole(_CT2_SAMPLED, data, at)
    return Ct2Sampled(epoch, auth, ct2, counter)


_DECODERS = (
    _keys_unsampled,
    _keys_sampled,
    _header_sent,
    _ct1_received,
    _ek_sent,
    _no_header_received,
    _header_received,
    _ct1_sampled,
    _ek_received,
    _ct1_acknowledged,
    _ct2_sampled,
)
"""By state number: what _encode_state writes."""


def _whole(form: struct.Struct, data: bytes, at: int) -> tuple[Any, ...]:
    if len(data) != at + form.size:
        raise CorruptRecord("post-quantum state has another length than it says")
    return form.unpack_from(data, at)


def _encode_chunks(chunks: Chunks) -> bytes:
    systematic, parity, data = chunks
    head = systematic.to_bytes(_BITMAP_SIZE, "big") + bytes((len(parity),))
    if parity:
        head += struct.pack(f">{len(parity)}H", *parity)
    return head + data


def _decode_chunks(data: bytes, at: int, needed: int) -> Chunks:
    systematic = int.from_bytes(data[at : at + _BITMAP_SIZE], "big")
    at += _BITMAP_SIZE
    parity: tuple[int, ...] = ()
    if at >= len(data):
        raise CorruptRecord("post-quantum chunks are truncated")
    if count := data[at]:
        parity = struct.unpack_from(f">{count}H", data, at + 1)
        if parity[0] < needed or any(a >= b for a, b in pairwise(parity)):
            raise CorruptRecord("post-quantum chunks out of order")
    body = data[at + 1 + 2 * count :]
    held = systematic.bit_count() + count
    if systematic >> needed or held >= needed or len(body) != held * CHUNK_SIZE:
        raise CorruptRecord("post-quantum chunks have another length than they say")
    return Chunks(systematic, parity, body)
