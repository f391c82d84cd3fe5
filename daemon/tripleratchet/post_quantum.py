"""The seam of the post-quantum ratchet: what a session asks of it, and which sessions have one.

A session calls `send` once for each message it encrypts and `receive` once for each attempt to
decrypt, keeps the returned state only if the whole operation succeeds, puts the bytes into field 5
and the key into the salt of the message keys. A session begins with what the policy of that moment
says, and keeps it for life. Source: facts/signal-session.md sections 14 and 15.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from .keys import Random
from .sparse_pq import SparseRatchet, resting


class PostQuantumPolicy(Enum):
    """Whether new sessions speak the post-quantum ratchet. Sessions under way are not affected."""

    REQUIRED = "required"
    """Both sides, from the first message on, as the official client since 0.92: a peer without it
    is refused. Clients from 0.83 on speak it."""

    OPTIONAL = "optional"
    """Offered, and spoken where the peer can (as 0.83 to 0.91 do): until a peer is known to,
    messages are not protected by it, and a peer without it (up to 0.82) is accepted."""

    DECLINED = "declined"
    """Never spoken: for peers up to 0.91 only. Those from 0.92 on refuse it."""


class PostQuantum(Protocol):
    """The post-quantum ratchet state of one session. Immutable; every move returns the next."""

    def send(self, random: Random) -> tuple[PostQuantum, bytes, bytes | None]:
        """Next state, wire bytes (empty: leave the field out), message key (32 bytes) or none."""
        ...

    def receive(self, wire: bytes, max_jump: int) -> tuple[PostQuantum | None, bytes | None]:
        """Next state (None: the peer has no such ratchet, go on with DECLINED), and message key or
        none. Raises InvalidMessage for an undecryptable one."""
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

    def receive(self, wire: bytes, max_jump: int) -> tuple[PostQuantum | None, bytes | None]:
        """No key: an offering peer uses none before it has heard from us (section 14)."""
        return self, None

    def to_bytes(self) -> bytes:
        """Nothing to store."""
        return b""


DECLINED = Declined()


def start(auth_key: bytes, *, is_initiator: bool, policy: PostQuantumPolicy) -> PostQuantum:
    """The state at the start of a session, from PQXDH's third output (32 bytes)."""
    if policy is PostQuantumPolicy.DECLINED:
        return DECLINED
    is_optional = policy is PostQuantumPolicy.OPTIONAL
    return SparseRatchet.start(auth_key, is_initiator=is_initiator, is_optional=is_optional)


def restore(stored: bytes) -> PostQuantum:
    """The state that to_bytes() wrote. Raises CorruptRecord."""
    return resting.restore(stored) if stored else DECLINED


def rested(state: PostQuantum) -> PostQuantum:
    """The same state in the form that costs least to store and to change by a message."""
    return resting.rest(state) if isinstance(state, SparseRatchet) else state
