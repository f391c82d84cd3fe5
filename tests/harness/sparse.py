"""Two ends of a sparse post-quantum ratchet, without messages around it.

Every step goes through stored bytes; a refused message is checked to have left them alone.
"""

from __future__ import annotations

import random as random_module
from dataclasses import dataclass, field

import pytest
from tripleratchet import InvalidMessage
from tripleratchet.sparse_pq import SparseRatchet
from tripleratchet.sparse_pq.resting import restore

MAX_JUMP = 25_000


@dataclass
class End:
    """One end: its state at rest, and its randomness.

    Each move is made on the decoded state and on the resting one, which have to agree.
    """

    stored: bytes
    random: random_module.Random
    keys: dict[bytes, bytes] = field(default_factory=dict)
    """By wire bytes: the key that each sent message was given."""
    is_twofold: bool = True
    """Whether the resting state makes the moves as well; not where their calls are counted."""

    @property
    def ratchet(self) -> SparseRatchet:
        return SparseRatchet.from_bytes(self.stored)

    @property
    def state(self) -> str:
        return type(self.ratchet.state).__name__

    @property
    def epoch(self) -> int:
        return self.ratchet.epoch

    def send(self) -> bytes:
        """The next message's bytes."""
        before = self.random.getstate()
        following, wire, key = self.ratchet.send(self.random.randbytes)
        if self.is_twofold:
            self.random.setstate(before)
            resting, *told = restore(self.stored).send(self.random.randbytes)
            assert (resting.to_bytes(), *told) == (following.to_bytes(), wire, key)
        assert key is not None
        assert wire not in self.keys
        self.keys[wire] = key
        self.stored = following.to_bytes()
        return wire

    def receive(self, wire: bytes) -> bytes | None:
        """The key of a message."""
        ratchet = self.ratchet
        try:
            following, key = ratchet.receive(wire, MAX_JUMP)
        except InvalidMessage:
            assert ratchet.to_bytes() == self.stored
            with pytest.raises(InvalidMessage):
                restore(self.stored).receive(wire, MAX_JUMP)
            raise
        assert following is not None
        if self.is_twofold:
            resting, its_key = restore(self.stored).receive(wire, MAX_JUMP)
            assert resting is not None
            assert (resting.to_bytes(), its_key) == (following.to_bytes(), key)
        self.stored = following.to_bytes()
        return key


def ends(seed: int = 0) -> tuple[End, End]:
    """Initiator and responder at the start of a session."""
    auth_key = random_module.Random(seed).randbytes(32)
    return tuple(  # type: ignore[return-value]
        End(
            SparseRatchet.start(auth_key, is_initiator=is_initiator).to_bytes(),
            random_module.Random(f"{seed} {is_initiator}"),
        )
        for is_initiator in (True, False)
    )


def exchange(sender: End, receiver: End) -> None:
    """One message, delivered, with the same key on both ends."""
    wire = sender.send()
    assert receiver.receive(wire) == sender.keys[wire]


def every_state(seed: int = 0) -> dict[str, End]:
    """An end in each of the eleven states, from conversations in lock-step and in bursts."""
    found: dict[str, End] = {}
    for there, back in ((1, 1), (40, 40), (40, 3)):
        one, other = ends(seed)
        for _ in range(120 // there + 4):
            for sender, receiver, burst in ((one, other, there), (other, one, back)):
                for _ in range(burst):
                    for end in (one, other):
                        found.setdefault(end.state, End(end.stored, end.random))
                    exchange(sender, receiver)
    return found
