"""Phone numbers at rest: found by a keyed hash, kept only sealed (I5).

The only place of the relay that turns a number into bytes on disk or back.
"""

from __future__ import annotations

from collections.abc import Callable

from letterlockd.relay.tables import ACCOUNTS, NUMBERS
from letterlockd.sealing.keyring import STORE_SCOPE, Keyring
from letterlockd.sealing.seal import lookup_hash, place, seal, subkey, unseal

__all__ = ["NumberVault"]


class NumberVault:
    """Seals and indexes phone numbers under the store's long-term key."""

    def __init__(self, key: bytes, random: Callable[[int], bytes]) -> None:
        self._index_key = subkey(key, "relay/number-index")
        self._seal_key = subkey(key, "relay/number")
        self._code_key = subkey(key, "relay/verification-code")
        self._random = random

    @classmethod
    async def open(cls, keyring: Keyring, random: Callable[[int], bytes]) -> NumberVault:
        """The vault of a store; its key is made durable on first use."""
        return cls(await keyring.scope_key(STORE_SCOPE), random)

    def index(self, number: str) -> bytes:
        """Key of the number in the `numbers` table, 32 bytes."""
        return lookup_hash(self._index_key, NUMBERS.name, number.encode())

    def code_hash(self, verification_id: bytes, code: str) -> bytes:
        """What is kept of a verification code, 32 bytes: keyed, because there are only 10^6."""
        return lookup_hash(self._code_key, "code", verification_id + code.encode())

    def seal(self, number: str, account: bytes) -> bytes:
        """The number as the account's row keeps it."""
        context = place(ACCOUNTS.number, account)
        return seal(self._seal_key, number.encode(), context, self._random)

    def unseal(self, sealed: bytes, account: bytes) -> str:
        """What `seal` sealed for this account; raises `SealBroken`."""
        return unseal(self._seal_key, sealed, place(ACCOUNTS.number, account)).decode()
