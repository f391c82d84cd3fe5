"""What the core counts: whole numbers since the start, without any name of a business or user."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Read by telemetry; written on the loop only."""

    accepted: int = 0
    repeated: int = 0
    refused: int = 0
    sent: int = 0
    failed: int = 0
    expired: int = 0
    repairs: int = 0
    first_contacts: int = 0
    received: int = 0
    duplicates: int = 0
    undecryptable: int = 0
    malformed_items: int = 0
    unknown_accounts: int = 0
    conflicts: int = 0
    key_uploads: int = 0
