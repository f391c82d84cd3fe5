"""One session's sparse post-quantum ratchet (SPQR): bytes and a key for each message, both ways.

Joins the state machine with the key chains and holds the rules of versions. While it negotiates
(nothing of version 1 has come yet) an unknown version is keyed from the first chain; afterwards it
is refused. An optional ratchet also negotiates itself away: it sends no key until it has heard
version 1, and a peer that answers with nothing ends it. Immutable: every move returns the next.
Knows no SignalMessage and no record. Source: facts/spqr.md section 1, facts/signal-session.md
section 14.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import InvalidMessage
from ..keys import Random, hidden
from . import states, stored
from .chains import Chains
from .limits import VERSION
from .states import State
from .wire import build, parse_content, parse_prefix

NEGOTIATING, OPTIONAL = 1, 2
_FIRST_CHAIN = 0
_NO_KEY = (1, 0)  # epoch and index of a message that has no key


class SparseRatchet(NamedTuple):
    """The state: `flags` say whether it negotiates, and whether it may end in nothing."""

    flags: int
    chains: Chains
    state: State

    def __repr__(self) -> str:
        return hidden(self)

    @classmethod
    def start(
        cls, auth_key: bytes, *, is_initiator: bool, is_optional: bool = False
    ) -> SparseRatchet:
        """The state at the start of a session, from PQXDH's third output (32 bytes)."""
        chains = Chains.start(auth_key, is_initiator=is_initiator)
        state = states.start(auth_key, is_initiator=is_initiator)
        return cls(NEGOTIATING | (OPTIONAL if is_optional else 0), chains, state)

    @classmethod
    def from_bytes(cls, data: bytes) -> SparseRatchet:
        """Undo to_bytes. Raises CorruptRecord."""
        return cls(*stored.decode(data))

    def to_bytes(self) -> bytes:
        """At rest: holds keys, so it must be sealed before it is stored."""
        return stored.encode(*self)

    @property
    def epoch(self) -> int:
        """The epoch of the next message, from 1."""
        return self.state.epoch

    @property
    def repeats(self) -> bool:
        """Whether the next message may leave all but a key chain and a counter alone."""
        return states.repeats(self.state)

    def send(self, random: Random) -> tuple[SparseRatchet, bytes, bytes | None]:
        """Next state, wire bytes, message key (32 bytes; none only before an optional ratchet has
        heard its peer). Draws 64 bytes for a key pair, 32 for an encapsulation."""
        flags, chains, state = self
        epoch = state.epoch
        following, kind, counter, chunk, secret = states.send(state, random)
        if secret is not None:
            chains = chains.add_epoch(secret)
        if flags == NEGOTIATING | OPTIONAL:
            message = build(*_NO_KEY, kind, counter, chunk)
            return SparseRatchet(flags, chains, following), message, None
        chains, index, key = chains.next_sending(epoch - 1)
        message = build(epoch, index, kind, counter, chunk)
        return SparseRatchet(flags, chains, following), message, key

    def receive(self, wire: bytes, max_jump: int) -> tuple[SparseRatchet | None, bytes | None]:
        """Next state and message key; the state is None where the peer has none of this.

        `max_jump` is how far an index may be ahead. Raises InvalidMessage.
        """
        flags, chains, state = self
        if not wire:
            return self._absent()
        version, epoch, index, at = parse_prefix(wire)
        if version != VERSION:
            return self._other_version(version, index, max_jump)
        state, secret = states.receive(state, epoch, parse_content(wire, at))
        if secret is not None:
            chains = chains.add_epoch(secret)
        key = None
        if (epoch, index) != _NO_KEY:
            chains, key = chains.receiving(epoch - 1, index, max_jump)
        return SparseRatchet(flags & ~NEGOTIATING, chains, state), key

    def _absent(self) -> tuple[None, None]:
        if self.flags == NEGOTIATING | OPTIONAL:
            return None, None
        raise InvalidMessage("message lacks the post-quantum ratchet")

    def _other_version(
        self, version: int, index: int, max_jump: int
    ) -> tuple[SparseRatchet | None, bytes | None]:
        if version == 0:
            return self._absent()
        flags, chains, state = self
        if not flags & NEGOTIATING:
            raise InvalidMessage("post-quantum version changed")
        if index == 0:
            return self, None
        chains, key = chains.receiving(_FIRST_CHAIN, index, max_jump)
        return SparseRatchet(flags, chains, state), key
