"""Business numbers as the gateway works with them: their keys, and the names made with those keys.

Tags and pseudonyms are HMACs under the number's scope key: two business numbers cannot compare
their users, and the store cannot be searched without the key. Knows no private key in clear.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from letterlockd.gateway.tables import NUMBERS
from letterlockd.model.ids import ID_BYTES, AccountId, Pseudonym
from letterlockd.model.sender import Sender
from letterlockd.records.v1 import gateway_pb2 as records
from letterlockd.sealing.keyring import Keyring
from letterlockd.sealing.seal import Deriver, subkey
from letterlockd.store.port import Store

__all__ = ["Number", "NumberBook", "SenderLookup"]

SenderLookup = Callable[[AccountId], Awaitable[Sender | None]]
"""The registry's business number of a relay account; None when it is none of ours."""

_MAX_CACHED = 4_096
_MAX_PSEUDONYMS = 65_536

_TIME_CHARACTERS = 11
"""Of a version 7 UUID in its usual form those that change every 256 ms; of our SDKs' keys, which
are without hyphens, every 16 ms: some dozens of messages under load, which fit a few pages."""

_BESIDE_BYTES = 4


@dataclass(frozen=True, slots=True)
class Number:
    """One business number. `key_scope` (16 bytes) names `scope_key` (32) and whom identity and
    pre-keys are sealed for; `sealed_identity` is for workers only. `hold_identity_changes` is the
    business's policy when the number was asked for."""

    account: AccountId
    key_scope: bytes
    scope_key: bytes = field(repr=False)
    sealed_identity: bytes = field(repr=False)
    hold_identity_changes: bool = False
    _deriver: Deriver = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_deriver", Deriver(self.scope_key))

    def pseudonym(self, user: AccountId) -> Pseudonym:
        """The user as this number knows them."""
        return _pseudonym(self.scope_key, user)

    def phone_tag(self, phone_number: str) -> bytes:
        """32 bytes to find a user's number by, without storing it."""
        return self._deriver.lookup_hash("phone", phone_number.encode())

    def key_tag(self, idempotency_key: str) -> bytes:
        """32 bytes that stand for a caller's idempotency key. Those of keys that begin alike lie
        side by side, so keys that begin with the time cost a commit few pages of the store instead
        of one each."""
        key = idempotency_key.encode()
        beside = _beside(self.scope_key, key[:_TIME_CHARACTERS])
        return beside + self._deriver.lookup_hash("idempotency", key)[len(beside) :]

    def digest(self, recipient: str, content: bytes) -> bytes:
        """32 bytes that differ when recipient or content do. Keyed, because short contents and
        numbers can be guessed."""
        return self._deriver.subkey("message", recipient.encode(), content)


class NumberBook:
    """The numbers of this gateway, read once and kept (bounded); their policies are the registry's,
    asked each time."""

    def __init__(self, store: Store, keyring: Keyring, senders: SenderLookup) -> None:
        self._store = store
        self._keyring = keyring
        self._senders = senders
        self._numbers: OrderedDict[AccountId, Number] = OrderedDict()
        self._barred: set[AccountId] = set()  # 16 bytes for each removal since the start

    def bar(self, account: AccountId) -> None:
        """The number is being removed: from now on it is none of ours."""
        self._barred.add(account)
        self._numbers.pop(account, None)

    async def get(self, account: AccountId) -> Number | None:
        """The number of a relay account; None when it is none of ours."""
        if account in self._barred:
            return None
        number = self._numbers.get(account) or await self._load(account)
        if number is None:
            return None
        sender = await self._senders(account)
        if account in self._barred:
            return None
        holds = sender is not None and sender.hold_identity_changes
        if holds != number.hold_identity_changes:
            number = self._numbers[account] = replace(number, hold_identity_changes=holds)
        return number

    async def _load(self, account: AccountId) -> Number | None:
        row = await self._store.get(NUMBERS, account) if len(account) == ID_BYTES else None
        if row is None:
            return None
        record = records.NumberRecord.FromString(row.value)
        scope_key = await self._keyring.scope_key(record.key_scope)
        if account in self._barred:
            return None
        number = Number(account, record.key_scope, scope_key, record.sealed_identity)
        self._numbers[account] = number
        while len(self._numbers) > _MAX_CACHED:
            self._numbers.popitem(last=False)
        return number

    async def accounts(self) -> list[AccountId]:
        """Every finished number of this gateway, ascending."""
        found: list[AccountId] = []
        after = b""
        while True:
            rows = await self._store.scan(NUMBERS, after=after, limit=1_000)
            found += [AccountId(key) for key, _ in rows if len(key) == ID_BYTES]
            found = [account for account in found if account not in self._barred]
            if len(rows) < 1_000:
                return found
            after = rows[-1][0]


@lru_cache(maxsize=_MAX_PSEUDONYMS)
def _pseudonym(scope_key: bytes, user: AccountId) -> Pseudonym:
    return Pseudonym(subkey(scope_key, "user", user)[:ID_BYTES])


@lru_cache(maxsize=1_024)
def _beside(scope_key: bytes, beginning: bytes) -> bytes:
    return subkey(scope_key, "idempotency beginning", beginning)[:_BESIDE_BYTES]
