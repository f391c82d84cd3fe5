"""From a business number to the sender that may act with it.

A number that is another business's and one that nobody has are refused alike, so that nobody can
find out by asking who is a customer here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from letterlockd.errors import Forbidden
from letterlockd.model.ids import AccountId, BusinessId
from letterlockd.model.phone import check_e164
from letterlockd.model.sender import Sender
from letterlockd.records.v1 import registry_pb2
from letterlockd.registry.principals import Principal
from letterlockd.registry.tables import BUSINESSES, NUMBERS, account_key, number_key
from letterlockd.sealing.keyring import STORE_SCOPE, Keyring
from letterlockd.sealing.seal import lookup_hash, place, seal, unseal
from letterlockd.store.port import Store

__all__ = ["NumberVault", "Senders"]

_MAX_CACHED = 10_000


class NumberVault:
    """Tags, seals and opens business numbers."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def tag(self, phone_number: str) -> bytes:
        """The number's keyed hash, 32 bytes."""
        key = await self._keyring.scope_key(STORE_SCOPE)
        return lookup_hash(key, "business number", phone_number.encode())

    async def seal(self, business: BusinessId, tag: bytes, phone_number: str) -> bytes:
        """The number sealed under the business's key, bound to its row."""
        key = await self._keyring.scope_key(business)
        return seal(key, phone_number.encode(), place(NUMBERS.number, number_key(tag)))

    async def open(self, tag: bytes, record: registry_pb2.BusinessNumberRecord) -> str:
        """The number again. `SealBroken` when the row was altered or moved."""
        key = await self._keyring.scope_key(record.business_id)
        context = place(NUMBERS.number, number_key(tag))
        return unseal(key, record.sealed_number, context).decode()


class Senders:
    """Looks up senders; keeps the most recent `_MAX_CACHED` of them, until `forget`."""

    def __init__(self, store: Store, vault: NumberVault) -> None:
        self._store = store
        self._vault = vault
        self._by_number: OrderedDict[str, Sender] = OrderedDict()
        self._by_account: OrderedDict[AccountId, Sender] = OrderedDict()
        self._edition = 0
        self._watchers: dict[AccountId, list[Callable[[], None]]] = {}

    def watch(self, account: AccountId, removed: Callable[[], None]) -> Callable[[], None]:
        """Call `removed` once when the number is taken away. Returns what ends the watch."""
        self._watchers.setdefault(account, []).append(removed)

        def unwatch() -> None:
            watchers = self._watchers.get(account, [])
            if removed in watchers:
                watchers.remove(removed)
            if not watchers:
                self._watchers.pop(account, None)

        return unwatch

    def removed(self, account: AccountId) -> None:
        """A number was taken away, durably: nobody acts with it any more."""
        self.forget()
        for removed in self._watchers.pop(account, []):
            removed()

    def forget(self) -> None:
        """A business was changed: read again, also what is being read now."""
        self._edition += 1
        self._by_number.clear()
        self._by_account.clear()

    async def sender(self, principal: Principal, business_number: str) -> Sender:
        """The sender with this number. Raises `InvalidField` when it is malformed, `Forbidden` when
        it is not a number of the principal's business (also for the operator)."""
        check_e164(business_number, "business_number")
        sender = self._by_number.get(business_number)
        if sender is None:
            sender = await self._load(await self._vault.tag(business_number))
        if sender is None or sender.business_id != principal.business_id:
            raise Forbidden("the token does not reach this business number")
        return sender

    async def sender_by_account(self, account: AccountId) -> Sender | None:
        """The sender whose relay account this is."""
        sender = self._by_account.get(account)
        if sender is not None:
            self._by_account.move_to_end(account)
            return sender
        row = await self._store.get(NUMBERS, account_key(account))
        return None if row is None else await self._load(row.value)

    async def _load(self, tag: bytes) -> Sender | None:
        row = await self._store.get(NUMBERS, number_key(tag))
        if row is None:
            return None
        record = registry_pb2.BusinessNumberRecord.FromString(row.value)
        edition = self._edition
        business = await self._store.get(BUSINESSES, record.business_id)
        if not record.account_id or record.remove_ms or business is None:
            return None
        kept = registry_pb2.BusinessRecord.FromString(business.value)
        sender = Sender(
            BusinessId(record.business_id),
            AccountId(record.account_id),
            await self._vault.open(tag, record),
            kept.retention_ms,
            kept.hold_identity_changes,
        )
        if edition == self._edition:
            self._remember(sender)
        return sender

    def _remember(self, sender: Sender) -> None:
        self._by_number[sender.phone_number] = sender
        self._by_account[sender.account_id] = sender
        for cache in (self._by_number, self._by_account):
            while len(cache) > _MAX_CACHED:
                cache.popitem(last=False)
