"""A business number that may act: what the registry tells the rooms that send and receive."""

from __future__ import annotations

from dataclasses import dataclass, field

from letterlockd.model.ids import AccountId, BusinessId

__all__ = ["Sender"]


@dataclass(frozen=True, slots=True)
class Sender:
    """One number of one business, after the caller's right to act for it was checked.

    `retention_ms` is the business's: the longest that anything of a message is kept.
    `hold_identity_changes` is its policy. The number stays out of the repr.
    """

    business_id: BusinessId
    account_id: AccountId
    phone_number: str = field(repr=False)
    retention_ms: int
    hold_identity_changes: bool = False
