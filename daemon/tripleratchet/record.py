"""The session record: the current session, the archived ones, and their bytes at rest.

    record   02 | u8 count of archived sessions, + 128 if there is a current one
             | archived sessions, each with its u32 length | current session to the end
    session  parties | flags | ratchet core | u8 count of receiving chains | pending, if flag 1
             | u16 skipped seeds of each chain | the chains | post-quantum state, if flag 2

Numbers are big-endian. Archived sessions stay bytes until one is needed. The first byte is the
format's version: a later format gets a new number and keeps reading this one (see migration.py).
Knows no message and no flow. Source: facts/signal-session.md section 11.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from . import migration, post_quantum
from .double import (
    CHAIN_SIZE,
    CORE_SIZE,
    RATCHET_KEY,
    SENDING_PUBLIC,
    SKIPPED_SIZE,
    Ratchet,
)
from .errors import CorruptRecord
from .limits import MAX_ARCHIVED_SESSIONS, MAX_RECEIVING_CHAINS, MAX_SKIPPED_SEEDS
from .session import BASE, PARTIES_SIZE, REMOTE, Parties, Pending, Session

FORMAT_VERSION = 2
_FIXED = struct.Struct(f">{PARTIES_SIZE}sB{CORE_SIZE}sB")
_PENDING = struct.Struct(">BIIIQ1569s")
_SKIPPED = tuple(struct.Struct(f">{count}H") for count in range(MAX_RECEIVING_CHAINS + 1))
_NONE_SKIPPED = tuple(bytes(2 * count) for count in range(MAX_RECEIVING_CHAINS + 1))
_CHAINS = tuple(
    struct.Struct(f"{CHAIN_SIZE}s" * count) for count in range(MAX_RECEIVING_CHAINS + 1)
)
_HEAD = struct.Struct(">BB")
_PENDING_FLAG, _POST_QUANTUM = 1, 2
_HAS_CURRENT = 0x80
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class SessionRecord:
    """All sessions with one address. Immutable: every change gives a new record.

    `archived` holds encoded sessions, newest first, at most 40.
    """

    current: Session | None = None
    archived: tuple[bytes, ...] = ()

    @classmethod
    def from_bytes(cls, data: bytes) -> SessionRecord:
        """Read what to_bytes wrote, in any format version so far. Raises CorruptRecord."""
        try:
            return _decode_record(data)
        except (struct.error, IndexError):
            raise CorruptRecord("session record is truncated") from None

    def to_bytes(self) -> bytes:
        """The record at rest: holds private keys, so it must be sealed before it is stored."""
        has_current = 0 if self.current is None else _HAS_CURRENT
        parts = [_HEAD.pack(FORMAT_VERSION, len(self.archived) | has_current)]
        for session in self.archived:
            parts += (_LENGTH.pack(len(session)), session)
        if self.current is not None:
            parts.append(encode_session(self.current))
        return b"".join(parts)

    @property
    def has_current(self) -> bool:
        """Whether there is a session to send with."""
        return self.current is not None

    @property
    def remote_identity_key(self) -> bytes | None:
        """The peer's identity key (33 bytes) in the current session."""
        return None if self.current is None else self.current.parties[REMOTE]

    @property
    def remote_registration_id(self) -> int | None:
        """The peer's registration id in the current session."""
        return (
            None
            if self.current is None
            else Parties.decode(self.current.parties).remote_registration_id
        )

    @property
    def is_acknowledged(self) -> bool:
        """Whether the peer has answered on the current session (its messages are type 2)."""
        return self.current is not None and self.current.pending is None

    @property
    def is_post_quantum(self) -> bool:
        """Whether messages of the current session go through the post-quantum ratchet."""
        return self.current is not None and self.current.post_quantum is not post_quantum.DECLINED

    def sends_under(self, ratchet_key: bytes) -> bool:
        """Whether the current session sends under this ratchet key of ours. If the peer cannot
        decrypt that, archive()."""
        current = self.current
        return current is not None and current.ratchet.core[SENDING_PUBLIC] == ratchet_key

    def receives_under(self, ratchet_key: bytes) -> bool:
        """Whether the newest chain that the current session receives on is under this ratchet key
        of the peer."""
        current = self.current
        return (
            current is not None
            and bool(current.ratchet.receiving)
            and current.ratchet.receiving[-1][RATCHET_KEY] == ratchet_key
        )

    def archive(self) -> SessionRecord:
        """Put the current session away: sending needs a new one, receiving still works."""
        return SessionRecord(None, self._archived_with_current(self.archived))

    def rested(self) -> SessionRecord:
        """The same record in the form that from_bytes() gives, for a caller that keeps records in
        memory: storing them again and most messages cost less."""
        current = self.current
        if current is None:
            return self
        return self.with_current(
            current._replace(post_quantum=post_quantum.rested(current.post_quantum))
        )

    def with_current(self, session: Session) -> SessionRecord:
        """The current session in its next state."""
        return SessionRecord(session, self.archived)

    def promote(self, session: Session, position: int | None = None) -> SessionRecord:
        """Make `session` current and archive the former one.

        `position` is where it was in `archived`; None for a new session.
        """
        others = self.archived
        if position is not None:
            others = others[:position] + others[position + 1 :]
        return SessionRecord(session, self._archived_with_current(others))

    def archived_session(self, position: int) -> Session:
        """Decode one archived session. Raises CorruptRecord."""
        try:
            return decode_session(self.archived[position])
        except (struct.error, IndexError):
            raise CorruptRecord("archived session is truncated") from None

    def find_base_key(self, base_key: bytes) -> int | None:
        """Where the session with this base key is: -1 current, else its archived position."""
        if self.current is not None and self.current.parties[BASE] == base_key:
            return -1
        for position, session in enumerate(self.archived):
            if session[BASE] == base_key:
                return position
        return None

    def _archived_with_current(self, others: tuple[bytes, ...]) -> tuple[bytes, ...]:
        if self.current is None:
            return others
        former = encode_session(self.current.acknowledged())
        return (former, *others[: MAX_ARCHIVED_SESSIONS - 1])


def encode_session(session: Session) -> bytes:
    """One session at rest."""
    parties, (core, chains), pending, pq = session
    count = len(chains)
    post_quantum_state = pq.to_bytes()
    flags = (pending is not None) | (_POST_QUANTUM if post_quantum_state else 0)
    parts = [_FIXED.pack(parties, flags, core, count)]
    if pending is not None:
        parts.append(_encode_pending(pending))
    if sum(map(len, chains)) == count * CHAIN_SIZE:
        parts.append(_NONE_SKIPPED[count])
    else:
        skipped = ((len(chain) - CHAIN_SIZE) // SKIPPED_SIZE for chain in chains)
        parts.append(_SKIPPED[count].pack(*skipped))
    parts += chains
    parts.append(post_quantum_state)
    return b"".join(parts)


def decode_session(data: bytes) -> Session:
    """Undo encode_session. Raises CorruptRecord, struct.error or IndexError."""
    parties, flags, core, count = _FIXED.unpack_from(data)
    if flags > _PENDING_FLAG | _POST_QUANTUM or count > MAX_RECEIVING_CHAINS:
        raise CorruptRecord("session flags out of range")
    at, pending = _FIXED.size, None
    if flags & _PENDING_FLAG:
        pending = _decode_pending(data, at)
        at += _PENDING.size
    chains, at = _decode_chains(data, at, count)
    pq = post_quantum.restore(data[at:])
    if bool(flags & _POST_QUANTUM) != (at < len(data)):
        raise CorruptRecord("session has another length than it says")
    return Session(parties, Ratchet(core, chains), pending, pq)


def _decode_chains(data: bytes, at: int, count: int) -> tuple[tuple[bytes, ...], int]:
    start = at + 2 * count
    if data[at:start] == _NONE_SKIPPED[count]:
        return _CHAINS[count].unpack_from(data, start), start + count * CHAIN_SIZE
    skipped, chains = _SKIPPED[count].unpack_from(data, at), []
    for seeds in skipped:
        end = start + CHAIN_SIZE + seeds * SKIPPED_SIZE
        chains.append(data[start:end])
        start = end
    if start > len(data) or max(skipped) > MAX_SKIPPED_SEEDS:
        raise CorruptRecord("receiving chains out of range")
    return tuple(chains), start


def _decode_record(data: bytes) -> SessionRecord:
    version, count = _HEAD.unpack_from(data)
    if version == migration.OLD_VERSION:
        data = migration.from_version_1(data)
        version, count = _HEAD.unpack_from(data)
    if version != FORMAT_VERSION:
        raise CorruptRecord("session record has an unknown format version")
    has_current, count = count >= _HAS_CURRENT, count % _HAS_CURRENT
    at, archived = _HEAD.size, []
    for _ in range(count):
        (size,) = _LENGTH.unpack_from(data, at)
        start = at + _LENGTH.size
        at = start + size
        archived.append(data[start:at])
    if at > len(data) or has_current == (at == len(data)) or count > MAX_ARCHIVED_SESSIONS:
        raise CorruptRecord("session record has another length than it says")
    return SessionRecord(decode_session(data[at:]) if has_current else None, tuple(archived))


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
