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
from .session import PARTIES_SIZE, Pending, Session

_FIXED = struct.Struct(f">{PARTIES_SIZE}sB{CORE_SIZE}sB")
_PENDING = struct.Struct(">BIIIQ1569s")
FLAGS_AT, CORE_AT, TABLE_AT = PARTIES_SIZE, PARTIES_SIZE + 1, _FIXED.size
"""Where, in a session, are the flags, the ratchet core and, if nothing is pending, the counts of
skipped seeds, with the number of chains just before them."""
POST_QUANTUM = 2
_PENDING_FLAG = 1
SKIPPED_COUNTS = tuple(struct.Struct(f">{count}H") for count in range(MAX_RECEIVING_CHAINS + 1))
NONE_SKIPPED = tuple(bytes(2 * count) for count in range(MAX_RECEIVING_CHAINS + 1))
_CHAINS = tuple(
    struct.Struct(f"{CHAIN_SIZE}s" * count) for count in range(MAX_RECEIVING_CHAINS + 1)
)


def encode(session: Session) -> bytes:
    """One session at rest."""
    parties, (core, chains), pending, pq = session
    count = len(chains)
    post_quantum_state = pq.to_bytes()
    flags = (pending is not None) | (POST_QUANTUM if post_quantum_state else 0)
    parts = [_FIXED.pack(parties, flags, core, count)]
    if pending is not None:
        parts.append(_encode_pending(pending))
    if sum(map(len, chains)) == count * CHAIN_SIZE:
        parts.append(NONE_SKIPPED[count])
    else:
        skipped = ((len(chain) - CHAIN_SIZE) // SKIPPED_SIZE for chain in chains)
        parts.append(SKIPPED_COUNTS[count].pack(*skipped))
    parts += chains
    parts.append(post_quantum_state)
    return b"".join(parts)


def decode(data: bytes) -> Session:
    """Undo encode. Raises CorruptRecord."""
    try:
        return _decode(data)
    except (struct.error, IndexError):
        raise CorruptRecord("session is truncated") from None


def _decode(data: bytes) -> Session:
    parties, flags, core, count = _FIXED.unpack_from(data)
    if flags > _PENDING_FLAG | POST_QUANTUM or count > MAX_RECEIVING_CHAINS:
        raise CorruptRecord("session flags out of range")
    at, pending = _FIXED.size, None
    if flags & _PENDING_FLAG:
        pending = _decode_pending(data, at)
        at += _PENDING.size
    chains, at = _decode_chains(data, at, count)
    pq = post_quantum.restore(data[at:])
    if bool(flags & POST_QUANTUM) != (at < len(data)):
        raise CorruptRecord("session has another length than it says")
    return Session(parties, Ratchet(core, chains), pending, pq)


def _decode_chains(data: bytes, at: int, count: int) -> tuple[tuple[bytes, ...], int]:
    start = at + 2 * count
    if data[at:start] == NONE_SKIPPED[count]:
        return _CHAINS[count].unpack_from(data, start), start + count * CHAIN_SIZE
    skipped, chains = SKIPPED_COUNTS[count].unpack_from(data, at), []
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
