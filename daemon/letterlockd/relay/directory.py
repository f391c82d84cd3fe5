"""Who has an account: cached reads, and the one way to change an account.

    read    cache ──miss──▶ store ──▶ cache
    change  turn of the account ──▶ commit (with a check of the version) ──▶ cache forgets
            ──▶ mailboxes of devices that went are reported to `removed`

A row read while some account changes is not cached, so the cache never holds what was true before
a change. Whoever commits on the strength of an account adds `unchanged(account)` to the commit.
It knows nothing of pre-keys and envelopes; removals leave work for the `purger`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from letterlockd.errors import BusyError
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.relay_pb2 import Purge
from letterlockd.relay.accounts import Account, Device, decode, encode
from letterlockd.relay.bounded import RecentlyUsed
from letterlockd.relay.numbers import NumberVault
from letterlockd.relay.tables import ACCOUNTS, NUMBERS, PURGES, purge_key
from letterlockd.relay.turns import Turns
from letterlockd.store.port import ABSENT, Check, Delete, Put, Store

__all__ = ["Directory", "unchanged"]

_CHANGED_RETRY_MS = 200

Change = Put | Delete | Check


class Directory:
    """Accounts by id and by number. `removed` is told the devices that are gone after a commit."""

    def __init__(
        self,
        store: Store,
        vault: NumberVault,
        *,
        cached: int,
        removed: Callable[[Sequence[Device]], None],
        next_item_id: Callable[[], int],
    ) -> None:
        self._store = store
        self._vault = vault
        self._removed = removed
        self._next_item_id = next_item_id
        self._cache: RecentlyUsed[bytes, Account] = RecentlyUsed(cached)
        self._changes = 0
        self._turns: Turns[bytes] = Turns()

    async def get(self, account_id: bytes) -> Account | None:
        """The account, or None."""
        return (await self.get_many((account_id,)))[account_id]

    async def get_many(self, account_ids: Iterable[bytes]) -> dict[bytes, Account | None]:
        """Each of the accounts, or None for those that do not exist."""
        get = self._cache.get
        found: dict[bytes, Account | None] = {id_: get(id_) for id_ in account_ids}
        missing = [id_ for id_, account in found.items() if account is None]
        if missing:
            changes = self._changes
            for id_, record in zip(
                missing, await self._store.get_many(ACCOUNTS, missing), strict=True
            ):
                if record is None:
                    continue
                account = decode(AccountId(id_), record.value, record.version, self._vault)
                found[id_] = account
                if changes == self._changes:
                    self._cache.put(id_, account)
        return found

    async def by_number(self, number: str) -> Account | None:
        """The account of a phone number, or None."""
        record = await self._store.get(NUMBERS, self._vault.index(number))
        return None if record is None else await self.get(record.value)

    def forget(self, account_id: bytes) -> None:
        """Read the account from the store next time."""
        self._cache.drop(account_id)

    @asynccontextmanager
    async def turn(self, key: bytes) -> AsyncIterator[None]:
        """Changes of one account (key: its id, or its number's index) happen one by one. Lock
        order: number before account; nothing else is waited for but the store."""
        async with self._turns.of(key):
            yield

    async def save(
        self, account: Account, gone: Sequence[Device], changes: Sequence[Change] = ()
    ) -> None:
        """Write the account, with `changes` in the same transaction.

        `gone` are devices that it had before. Raises `BusyError` when a check failed: somebody
        changed one of the records meanwhile, and the caller may look again.
        """
        row = Put(ACCOUNTS, account.account_id, encode(account, self._vault))
        commit: list[Change] = [unchanged(account), row, *changes]
        if account.version == 0:
            commit.append(Put(NUMBERS, account.number_index, account.account_id))
            commit.append(Check(NUMBERS, account.number_index, ABSENT))
        await self._commit(account, gone, commit)

    async def delete(self, account: Account) -> None:
        """Remove the account and its number; pre-keys and envelopes go soon after."""
        commit: list[Change] = [
            unchanged(account),
            Delete(ACCOUNTS, account.account_id),
            Delete(NUMBERS, account.number_index),
        ]
        await self._commit(account, tuple(account.devices.values()), commit)

    async def _commit(
        self, account: Account, gone: Sequence[Device], commit: Sequence[Change]
    ) -> None:
        purges = await self._purges(account, gone)
        try:
            (conflict,) = await self._store.commit([[*commit, *purges]])
        except BaseException:
            self._changed(account, gone)  # it may have happened: a device that stays comes back
            raise
        if conflict is not None:
            gone = ()
        self._changed(account, gone)
        if conflict is not None:
            raise BusyError("the account was just changed", retry_after_ms=_CHANGED_RETRY_MS)

    def _changed(self, account: Account, gone: Sequence[Device]) -> None:
        self._changes += 1
        self._cache.drop(account.account_id)
        if gone:
            self._removed(gone)

    async def _purges(self, account: Account, gone: Sequence[Device]) -> list[Put]:
        if not gone:
            return []
        order = await self._store.reserve("relay.purges", len(gone))
        below = self._next_item_id() if account.is_business else 0
        return [
            Put(
                PURGES,
                purge_key(device.slot, order + place),
                Purge(
                    slot=device.slot,
                    mailbox=device.mailbox,
                    recipient=account.account_id if account.is_business else b"",
                    below_item_id=below,
                ).SerializeToString(),
            )
            for place, device in enumerate(gone)
        ]


def unchanged(account: Account) -> Check:
    """Makes a commit depend on the account being as it was read."""
    return Check(ACCOUNTS, account.account_id, account.version)
