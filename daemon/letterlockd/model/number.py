"""What making a business number's identity gives: for the registry, which keeps no private keys."""

from __future__ import annotations

from dataclasses import dataclass

from letterlockd.model.ids import AccountId

__all__ = ["RegisteredNumber"]


@dataclass(frozen=True, slots=True)
class RegisteredNumber:
    """The number's account at the relay and its public identity key (33 bytes)."""

    account_id: AccountId
    identity_key: bytes
