"""The seam of the post-quantum ratchet (SPQR): what a session asks of it, and the declined form.

A session calls `send` once for each message it encrypts and `receive` once for each attempt to
decrypt, keeps the returned state only if the whole operation succeeds, puts the bytes into field 5
and the key into the salt of the message keys. Declined is the only form so far: it sends nothing
and uses no key, which a peer that accepts version 0 takes as "switched off for this session".
Source: facts/signal-session.md section 14, facts/spqr.md section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .errors import CorruptRecord
from .keys import Random


class PostQuantum(Protocol):
    """The post-quantum ratchet state of one session. Immutable; every move returns the next."""

    def send(self, random: Random) -> tuple[PostQuantum, bytes, bytes | None]:
        """Next state, wire bytes (empty: leave the field out), message key (32 bytes) or none."""
        ...

    def receive(self, wire: bytes) -> tuple[PostQuantum, bytes | None]:
        """Next state and message key or none. Raises InvalidMessage for an undecryptable one."""
        ...

    def to_bytes(self) -> bytes:
        """For the session record; restore() reads it."""
        ...


@dataclass(frozen=True, slots=True)
class Declined:
    """No post-quantum ratchet: whatever a negotiable peer offers is ignored."""

    def send(self, random: Random) -> tuple[PostQuantum, bytes, bytes | None]:
        """Nothing to send, no key."""
        return self, b"", None

    def receive(self, wire: bytes) -> tuple[PostQuantum, bytes | None]:
        """No key: an offering peer uses none before it has heard from us (section 14)."""
        return self, None

    def to_bytes(self) -> bytes:
        """Nothing to store."""
        return b""


DECLINED = Declined()


def start(auth_key: bytes, *, initiator: bool, max_jump: int) -> PostQuantum:
    """The state at the start of a session, from PQXDH's third output (32 bytes)."""
    return DECLINED


def restore(stored: bytes) -> PostQuantum:
    """The state that to_bytes() wrote. Raises CorruptRecord."""
    if stored:
        raise CorruptRecord("post-quantum state of an unknown form")
    return DECLINED
