"""The session record: the current session, the archived ones, and their bytes at rest.

    record   02 | u8 count of archived sessions, + 128 if there is a current one
             | archived sessions, each with its u32 length | current session to the end

Numbers are big-endian; a session's own form is in stored.py. Archived sessions stay bytes until
one is needed. The first byte is the format's version: a later format gets a new number and keeps
reading this one (see migration.py).
Knows no message and no flow. Source: facts/signal-session.md section 11.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from . import migration, resting, stored
from .double import RATCHET_KEY, SENDING_PUBLIC
from .errors import CorruptRecord
from .keys import hidden
from .limits import MAX_ARCHIVED_SESSIONS
from .post_quantum import DECLINED
from .resting import Resting
from .session import BASE, REMOTE, REMOTE_REGISTRATION, Session

FORMAT_VERSION = 2
_HEAD = struct.Struct(">BB")
_HAS_CURRENT = 0x80
_LENGTH = struct.Struct(">I")


class SessionRecord(NamedTuple):
    """All sessions with one address. Immutable: every change gives a new record.

    `archived` holds encoded sessions, newest first, at most 40; the current one stays encoded too
    where it can.
    """

    current: Resting | Session | None = None
    archived: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return hidden(self)

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
            parts.append(_encoded(self.current))
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
        current = self.current
        if current is None:
            return None
        return int.from_bytes(current.parties[REMOTE_REGISTRATION], "big")

    @property
    def is_acknowledged(self) -> bool:
        """Whether the peer has answered on the current session (its messages are type 2)."""
        return self.current is not None and self.current.pending is None

    @property
    def is_post_quantum(self) -> bool:
        """Whether messages of the current session go through the post-quantum ratchet."""
        current = self.current
        return current is not None and current.post_quantum is not DECLINED

    def sends_under(self, ratchet_key: bytes) -> bool:
        """Whether the current session sends under this ratchet key of ours. If the peer cannot
        decrypt that, archive()."""
        current = self.current_session()
        return current is not None and current.ratchet.core[SENDING_PUBLIC] == ratchet_key

    def receives_under(self, ratchet_key: bytes) -> bool:
        """Whether the newest chain that the current session receives on is under this ratchet key
        of the peer."""
        current = self.current_session()
        return (
            current is not None
            and bool(current.ratchet.receiving)
            and current.ratchet.receiving[-1][RATCHET_KEY] == ratchet_key
        )

    def archive(self) -> SessionRecord:
        """Put the current session away: sending needs a new one, receiving still works."""
        return SessionRecord(None, self._archived_with_current(self.archived))

    def rested(self) -> SessionRecord:
        """The same record in the form that from_bytes() gives: most messages cost less in it."""
        current = self.current
        if not isinstance(current, Session):
            return self
        return SessionRecord(resting.rest(current), self.archived)

    def with_current(self, session: Resting | Session) -> SessionRecord:
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

    def current_session(self) -> Session | None:
        """The current session, decoded."""
        current = self.current
        return current.decoded() if isinstance(current, Resting) else current

    def archived_session(self, position: int) -> Session:
        """Decode one archived session. Raises CorruptRecord."""
        return stored.decode(self.archived[position])

    def find_base_key(self, base_key: bytes) -> int | None:
        """Where the session with this base key is: -1 current, else its archived position."""
        if self.current is not None and self.current.parties[BASE] == base_key:
            return -1
        for position, session in enumerate(self.archived):
            if session[BASE] == base_key:
                return position
        return None

    def _archived_with_current(self, others: tuple[bytes, ...]) -> tuple[bytes, ...]:
        former = self.current
        if former is None:
            return others
        if isinstance(former, Session):
            former = former.acknowledged()
        return (_encoded(former), *others[: MAX_ARCHIVED_SESSIONS - 1])


def _encoded(session: Resting | Session) -> bytes:
    return session.to_bytes() if isinstance(session, Resting) else stored.encode(session)


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
    return SessionRecord(resting.restore(data[at:]) if has_current else None, tuple(archived))
