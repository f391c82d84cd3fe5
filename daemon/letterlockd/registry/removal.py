"""Takes numbers and businesses away, for good.

    in force ──ordered, with its audit row, committed──▶ leaving ──gateway removed it──▶ gone
                              │ from now on: no sender, no token       │ relay away, crash:
                              ▼ open streams end                       ▼ `run` tries again

What is leaving cannot come back; the number can be added again when it is gone. Tokens die with
the order. Knows nothing of what the gateway keeps of a number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from letterlockd.clock import Clock
from letterlockd.errors import LetterlockError, NotFound
from letterlockd.model.ids import AccountId, BusinessId
from letterlockd.model.phone import check_e164
from letterlockd.records.v1.registry_pb2 import (
    BusinessNumberRecord,
    BusinessRecord,
    TokenRecord,
)
from letterlockd.registry import audit
from letterlockd.registry.ledger import Ledger
from letterlockd.registry.principals import Principal, Principals
from letterlockd.registry.senders import NumberVault, Senders
from letterlockd.registry.tables import BUSINESSES, NUMBERS, TOKENS, account_key, number_key
from letterlockd.sealing.keyring import Keyring
from letterlockd.store.port import Check, Delete, Put, Store, StoreUnavailable

__all__ = ["NumberRemover", "Removals"]

_log = structlog.get_logger(__name__)

_RETRY_SECONDS = 30.0
_PAGE = 1_000


class NumberRemover(Protocol):
    """Destroys what belongs to a number; the gateway's part."""

    async def remove_number(self, account: AccountId, phone_number: str) -> None:
        """Idempotent. Raises `LetterlockError` when that must wait."""
        ...


class Removals:
    """Orders removals and finishes them; who may is checked before."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        ledger: Ledger,
        vault: NumberVault,
        senders: Senders,
        principals: Principals,
        clock: Clock,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._ledger = ledger
        self._vault = vault
        self._senders = senders
        self._principals = principals
        self._clock = clock
        self._finishing = asyncio.Lock()

    async def remove_number(
        self,
        principal: Principal,
        business: BusinessId,
        phone_number: str,
        remover: NumberRemover,
    ) -> None:
        """Take a number away. `NotFound` when the business has no such number."""
        check_e164(phone_number, "phone_number")
        tag = await self._vault.tag(phone_number)
        async with self._ledger.changing:
            row, record = await self._ledger.load(business)
            if tag not in record.number_tags:
                raise NotFound("the business has no such number")
            number = await self._number(tag)
            if not number.remove_ms:
                account = number.account_id.hex()
                done = self._ledger.audit(principal, audit.Action.REMOVE_NUMBER, business, account)
                await self._ledger.change(business, row, record, self._leaving(tag, number), done)
                self._senders.removed(AccountId(number.account_id))
        async with self._finishing:
            await self._finish_number(tag, remover)

    async def delete_business(
        self, principal: Principal, business: BusinessId, remover: NumberRemover
    ) -> None:
        """Take a business away with all that it has. `NotFound`."""
        async with self._ledger.changing:
            row, record = await self._ledger.load_leaving(business)
            if not record.remove_ms:
                changes: list[Put | Check] = []
                accounts: list[AccountId] = []
                for tag in record.number_tags:
                    number = await self._number(tag)
                    accounts.append(AccountId(number.account_id))
                    changes.append(self._leaving(tag, number))
                in_force = [token.token_id for token in record.tokens if not token.revoke_ms]
                record.remove_ms = now_ms = self._clock.now_ms()
                ended = TokenRecord(business_id=business, revoke_ms=now_ms).SerializeToString()
                changes += [Put(TOKENS, token_id, ended) for token_id in in_force]
                changes.append(
                    self._ledger.audit(principal, audit.Action.DELETE_BUSINESS, business)
                )
                await self._ledger.change(business, row, record, *changes)
                for token_id in in_force:
                    self._principals.announce_revoked(token_id.hex())
                for account in accounts:
                    self._senders.removed(account)
        async with self._finishing:
            await self._finish_business(business, remover)

    async def run(
        self,
        remover: NumberRemover,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Finish what was ordered before a crash or while the relay was away, until cancelled."""
        while True:
            await self.finish_all(remover)
            await sleep(_RETRY_SECONDS)

    async def finish_all(self, remover: NumberRemover) -> None:
        """One round."""
        async with self._finishing:
            try:
                for tag in await self._leaving_numbers():
                    await self._finish_number(tag, remover)
                for business in await self._leaving_businesses():
                    await self._finish_business(business, remover)
            except StoreUnavailable:
                raise
            except LetterlockError as error:
                _log.info("removals_wait", reason=error.reason)

    def _leaving(self, tag: bytes, number: BusinessNumberRecord) -> Put:
        number.remove_ms = number.remove_ms or self._clock.now_ms()
        return Put(NUMBERS, number_key(tag), number.SerializeToString())

    async def _number(self, tag: bytes) -> BusinessNumberRecord:
        row = await self._store.get(NUMBERS, number_key(tag))
        if row is None:
            raise NotFound("the business has no such number")
        return BusinessNumberRecord.FromString(row.value)

    async def _finish_number(self, tag: bytes, remover: NumberRemover) -> None:
        row = await self._store.get(NUMBERS, number_key(tag))
        if row is None:
            return  # a round beside this call has done it
        number = BusinessNumberRecord.FromString(row.value)
        account, business = AccountId(number.account_id), BusinessId(number.business_id)
        await remover.remove_number(account, await self._vault.open(tag, number))
        async with self._ledger.changing:
            kept, record = await self._ledger.load_leaving(business)
            record.number_tags.remove(tag)
            await self._ledger.change(
                business,
                kept,
                record,
                Delete(NUMBERS, number_key(tag)),
                Delete(NUMBERS, account_key(account)),
            )

    async def _finish_business(self, business: BusinessId, remover: NumberRemover) -> None:
        row = await self._store.get(BUSINESSES, business)
        if row is None:
            return
        record = BusinessRecord.FromString(row.value)
        for tag in record.number_tags:
            await self._finish_number(tag, remover)
        await self._keyring.destroy(business)
        tokens = [Delete(TOKENS, token.token_id) for token in record.tokens]
        await self._ledger.commit([Delete(BUSINESSES, business), *tokens])

    async def _leaving_numbers(self) -> list[bytes]:
        found: list[bytes] = []
        prefix = after = number_key(b"")
        while rows := await self._store.scan(NUMBERS, prefix=prefix, after=after, limit=_PAGE):
            after = rows[-1][0]
            found += [
                key[len(prefix) :]
                for key, row in rows
                if BusinessNumberRecord.FromString(row.value).remove_ms
            ]
        return found

    async def _leaving_businesses(self) -> list[BusinessId]:
        found: list[BusinessId] = []
        after = b""
        while rows := await self._store.scan(BUSINESSES, after=after, limit=_PAGE):
            after = rows[-1][0]
            found += [
                BusinessId(key)
                for key, row in rows
                if BusinessRecord.FromString(row.value).remove_ms
            ]
        return found
