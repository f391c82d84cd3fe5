"""Ourselves in a conversation, and the one question of trust the flows ask.

Whether a key is accepted is decided by the caller, who hands in the accepted one; this module only
compares. Source: facts/signal-session.md sections 4 and 10.4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .address import Address
from .errors import InvalidAddress, UntrustedIdentity
from .keys import IdentityKeyPair
from .limits import MAX_COUNTER
from .post_quantum import PostQuantumPolicy


@dataclass(frozen=True, slots=True)
class LocalParty:
    """Ourselves in a conversation: address, identity, registration id (1..16383 by convention),
    and whether sessions that start now speak the post-quantum ratchet.

    Raises InvalidAddress for a registration id beyond 32 bits.
    """

    address: Address
    identity: IdentityKeyPair = field(repr=False)
    registration_id: int
    post_quantum: PostQuantumPolicy = PostQuantumPolicy.REQUIRED

    def __post_init__(self) -> None:
        if not 0 <= self.registration_id <= MAX_COUNTER:
            raise InvalidAddress("registration id is not an unsigned 32-bit number")


def check_trust(identity_key: bytes, trusted_identity: bytes | None) -> None:
    """Raises UntrustedIdentity if another key was accepted before; None accepts any."""
    if trusted_identity is not None and identity_key != trusted_identity:
        raise UntrustedIdentity("identity key differs from the accepted one")
