"""One session at rest.

    parties | flags | ratchet core | u8 count of receiving chains | pending, if flag 1
    | u16 skipped seeds of each chain | the chains | post-quantum state, if flag 2

Numbers are big-endian. What decodes encodes to the same bytes. Knows no record and no message.
Source: facts/signal-session.md section 11.
"""

from __future__ import annotations

import struct

from . import post_quantum
from .double import CHAIN_SIZE, CORE_SIZE, SKIPPED_SIZE, Ratchet
from .errors import CorruptRecord
from .limits import MAX_RECEIVING_CHAINS, MAX_SKIPPED_SEEDS
from .post_quantum import DECLINED, PostQuantum
from .session import PARTIES_SIZE, Pending, Session

_FIXED = struct.Struct(f">{PARTIES_SIZE}sB{CORE_SIZE}sB")
_PENDING = struct.Struct(">BIIIQ1569s")
CORE_AT = PARTIES_SIZE + 1
"""Where the ratchet core begins."""
_FLAGS_AT, _TABLE_AT = PARTIES_SIZE, _FIXED.size
_PENDING_FLAG, _POST_QUANTUM = 1, 2
_SKIPPED_COUNTS = tuple(struct.Struct(f">{count}H") for count in range(MAX_RECEIVING_CHAINS + 1))
_NONE_SKIPPED = tuple(bytes(2 * count) for count in range(MAX_RECEIVING_CHAINS + 1))
_CHAINS = tuple(
    struct.Struct(f"{CHAIN_SIZE}s" * count) for count in range(MAX_RECEIVING_CHAINS + 1)
)


def encode(session: Session) -> bytes:
    """One session at rest."""
    return front(session) + session.post_quantum.to_bytes()


def front(session: Session) -> bytes:
    """All of a session at rest but its post-quantum state."""
    parties, (core, chains), pending, pq = session
    count = len(chains)
    flags = (pending is not None) | (0 if pq is DECLINED else _POST_QUANTUM)
    parts = [_FIXED.pack(parties, flags, core, count)]
    if pending is not None:
        parts.append(_encode_pending(pending))
    if sum(map(len, chains)) == count * CHAIN_SIZE:
        parts.append(_NONE_SKIPPED[count])
    else:
        skipped = ((len(chain) - CHAIN_SIZE) // SKIPPED_SIZE for chain in chains)
        parts.append(_SKIPPED_COUNTS[count].pack(*skipped))
    parts += chains
    return b"".join(parts)


def decode(data: bytes) -> Session:
    """Undo encode. Raises CorruptRecord."""
    try:
        parties, ratchet, pending, at = _decode_front(data)
    except (struct.error, IndexError):
        raise CorruptRecord("session is truncated") from None
    return Session(parties, ratchet, pending, post_quantum_at(data, at))


def with_post_quantum(front: bytes, pq: PostQuantum) -> Session:
    """The session whose bytes begin with `front`, which has been checked."""
    return Session(*_decode_front(front)[:3], pq)


def post_quantum_at(data: bytes, at: int) -> PostQuantum:
    """The post-quantum state from `at` to the end of a session. Raises CorruptRecord."""
    if bool(data[_FLAGS_AT] & _POST_QUANTUM) != (at < len(data)) or at > len(data):
        raise CorruptRecord("session has another length than it says")
    return post_quantum.restore(data[at:])


def newest_chain(data: bytes) -> tuple[int, int] | None:
    """Where the newest receiving chain begins and ends, in a session that the peer has answered;
    None in others, and in some damaged ones."""
    if len(data) < _TABLE_AT or data[_FLAGS_AT] not in (0, _POST_QUANTUM):
        return None
    count = data[_TABLE_AT - 1]
    if not 0 < count <= MAX_RECEIVING_CHAINS:
        return None
    at = _TABLE_AT + 2 * count
    end = at + count * CHAIN_SIZE
    newest = end - CHAIN_SIZE
    if data[_TABLE_AT:at] != _NONE_SKIPPED[count]:
        if len(data) < at:
            return None
        skipped = _SKIPPED_COUNTS[count].unpack_from(data, _TABLE_AT)
        if max(skipped) > MAX_SKIPPED_SEEDS:
            return None
        end += sum(skipped) * SKIPPED_SIZE
        newest = end - CHAIN_SIZE - skipped[-1] * SKIPPED_SIZE
    return (newest, end) if end <= len(data) else None


def _decode_front(data: bytes) -> tuple[bytes, Ratchet, Pending | None, int]:
    """A session but for its post-quantum state, and where that begins."""
    parties, flags, core, count = _FIXED.unpack_from(data)
    if flags > _PENDING_FLAG | _POST_QUANTUM or count > MAX_RECEIVING_CHAINS:
        raise CorruptRecord("session flags out of range")
    at, pending = _FIXED.size, None
    if flags & _PENDING_FLAG:
        pending = _decode_pending(data, at)
        at += _PENDING.size
    chains, at = _decode_chains(data, at, count)
    return parties, Ratchet(core, chains), pending, at


def _decode_chains(data: bytes, at: int, count: int) -> tuple[tuple[bytes, ...], int]:
    start = at + 2 * count
    if data[at:start] == _NONE_SKIPPED[count]:
        return _CHAINS[count].unpack_from(data, start), start + count * CHAIN_SIZE
    skipped, chains = _SKIPPED_COUNTS[count].unpack_from(data, at), []
    for seeds in skipped:
        end = start + CHAIN_SIZE + seeds * SKIPPED_SIZE
        chains.append(data[start:end])
        start = end
    if start > len(data) or max(skipped) > MAX_SKIPPED_SEEDS:
        raise CorruptRecord("receiving chains out of range")
    return tuple(chains), start


def _encode_pending(pending: Pending) -> bytes:
    return _PENDING.pack(
        pending.pre_key_id is not None,
        pending.pre_key_id or 0,
        pending.signed_pre_key_id,
        pending.kyber_pre_key_id,
        pending.created_seconds,
        pending.kyber_ciphertext,
    )


def _decode_pending(data: bytes, at: int) -> Pending:
    has_pre_key, pre_key_id, signed_id, kyber_id, created, ciphertext = _PENDING.unpack_from(
        data, at
    )
    if has_pre_key > 1:
        raise CorruptRecord("pending flag out of range")
    return Pending(pre_key_id if has_pre_key else None, signed_id, kyber_id, ciphertext, created)
