"""What can go wrong with keys and sealed bytes.

    EnvironmentFault
    ├── SealBroken        SEAL_BROKEN: altered, moved to another place, or another key
    └── MasterKeyFault    MASTER_KEY_PERMISSIONS, MASTER_KEY_INVALID, MASTER_KEY_MISSING,
                          MASTER_KEY_WRONG, MASTER_KEY_PASSPHRASE, MASTER_KEY_COMMAND
    NotFound
    └── KeyDestroyed      KEY_DESTROYED: its day is over; what it sealed is deleted (I4)

No text here ever holds a key, a passphrase or sealed bytes.
"""

from __future__ import annotations

from letterlockd.errors import EnvironmentFault, NotFound

__all__ = ["KeyDestroyed", "MasterKeyFault", "SealBroken"]


class SealBroken(EnvironmentFault):
    """Sealed bytes do not open: damaged, altered, in another place, or under another key."""

    reason = "SEAL_BROKEN"


class MasterKeyFault(EnvironmentFault):
    """The operator's master key cannot be used; `reason` says why."""

    reason = "MASTER_KEY_INVALID"


class KeyDestroyed(NotFound):
    """The day key is gone with its day: what it sealed is deleted, wherever copies are."""

    reason = "KEY_DESTROYED"
