"""Records of earlier format versions, rewritten into the current one when they are read.

Version 1 (no post-quantum ratchet in it):

    record   01 | u32 length, current session (length 0: none) | u8 count | archived sessions,
             each with its u32 length
    session  as in version 2, but u32 length of each receiving chain, and nothing after the chains

Works on bytes alone: knows what differs and nothing else of a session.
"""

from __future__ import annotations

import struct

from .double import CHAIN_SIZE, SKIPPED_SIZE
from .errors import CorruptRecord
from .limits import MAX_ARCHIVED_SESSIONS, MAX_SKIPPED_SEEDS

OLD_VERSION = 1
_FIXED_SIZE, _PENDING_FLAG, _CHAIN_COUNT, _PENDING_SIZE = 246, 107, 245, 1590
_LENGTH = struct.Struct(">I")


def from_version_1(data: bytes) -> bytes:
    """A record of version 1 in version 2. Raises CorruptRecord, struct.error or IndexError."""
    current, at = _sized(data, 1)
    count, archived = data[at], []
    at += 1
    for _ in range(count):
        session, at = _sized(data, at)
        archived.append(_session(session))
    if at != len(data) or count > MAX_ARCHIVED_SESSIONS:
        raise CorruptRecord("session record has another length than it says")
    parts = [bytes((2, count | (0x80 if current else 0)))]
    for session in archived:
        parts += (_LENGTH.pack(len(session)), session)
    return b"".join((*parts, _session(current) if current else b""))


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    (size,) = _LENGTH.unpack_from(data, at)
    start, end = at + _LENGTH.size, at + _LENGTH.size + size
    return data[start:end], end


def _session(data: bytes) -> bytes:
    table = _FIXED_SIZE + (_PENDING_SIZE if data[_PENDING_FLAG] else 0)
    count = data[_CHAIN_COUNT]
    sizes = struct.unpack_from(f">{count}I", data, table)
    chains = table + count * _LENGTH.size
    if len(data) != chains + sum(sizes):
        raise CorruptRecord("session has another length than it says")
    skipped = []
    for size in sizes:
        seeds, rest = divmod(size - CHAIN_SIZE, SKIPPED_SIZE)
        if rest or not 0 <= seeds <= MAX_SKIPPED_SEEDS:
            raise CorruptRecord("receiving chain has an impossible size")
        skipped.append(seeds)
    return data[:table] + struct.pack(f">{count}H", *skipped) + data[chains:]
