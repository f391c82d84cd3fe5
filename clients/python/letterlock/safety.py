"""Safety numbers as Letterlock makes them: which of Signal's parameters both ends must agree on.

Version 2 with 5,200 rounds, as today's Signal apps. A party's stable identifier is its account id,
16 bytes, the same that its ratchet address is made of: whoever takes over a phone number has
another identity key, whoever takes over an account as well.
"""

from __future__ import annotations

from tripleratchet import SafetyNumber, safety_number

__all__ = ["SAFETY_NUMBER_VERSION", "safety_number_of"]

SAFETY_NUMBER_VERSION = 2


def safety_number_of(
    own_account: bytes, own_identity: bytes, account: bytes, identity: bytes
) -> SafetyNumber:
    """The number of two accounts (16 bytes) with these identity keys (33 bytes). Some milliseconds
    of work."""
    return safety_number(
        version=SAFETY_NUMBER_VERSION,
        local_identifier=own_account,
        local_identity=own_identity,
        remote_identifier=account,
        remote_identity=identity,
    )
