"""Gives businesses their numbers.

    free ──claim, committed──▶ claimed ──relay registers──▶ registered ──committed──▶ complete
                                  │ refused for good: claim released

The claim keeps two businesses from registering one number at a time. A crash, or a relay that
cannot be reached, leaves the claim; adding the number again goes on from there. Holds no lock while
the relay is asked.
"""

from __future__ import annotations

from typing import Protocol

from letterlockd.errors import AlreadyExists, CallerError, Conflict
from letterlockd.model.ids import AccountId, BusinessId
from letterlockd.model.number import RegisteredNumber
from letterlockd.model.phone import check_e164
from letterlockd.records.v1.registry_pb2 import BusinessNumberRecord, BusinessRecord
from letterlockd.registry import audit
from letterlockd.registry.businesses import Business
from letterlockd.registry.ledger import Ledger
from letterlockd.registry.principals import Principal
from letterlockd.registry.senders import NumberVault
from letterlockd.registry.tables import BUSINESSES, NUMBERS, account_key, number_key
from letterlockd.store.port import ABSENT, Check, Delete, Put, Record, Store

__all__ = ["MAX_NUMBERS", "Enrolment", "NumberRegistrar"]

MAX_NUMBERS = 100
"""Numbers of a business; its row carries a tag of each."""


class NumberRegistrar(Protocol):
    """Makes a number's identity and registers it with the relay; the gateway's part."""

    async def register_number(
        self, business_id: BusinessId, phone_number: str, retention_ms: int
    ) -> RegisteredNumber:
        """Idempotent: the same number again gives the same account and key."""
        ...

    async def set_retention(self, account: AccountId, retention_ms: int) -> None:
        """Tell the relay. Idempotent. Raises `LetterlockError`."""
        ...


class Enrolment:
    """Adds numbers; who may is checked before."""

    def __init__(self, store: Store, ledger: Ledger, vault: NumberVault) -> None:
        self._store = store
        self._ledger = ledger
        self._vault = vault

    async def add_number(
        self,
        principal: Principal,
        business: BusinessId,
        phone_number: str,
        registrar: NumberRegistrar,
    ) -> Business:
        """Give a business a number. `AlreadyExists` when another business has it; adding it again
        changes nothing."""
        check_e164(phone_number, "phone_number")
        tag = await self._vault.tag(phone_number)
        async with self._ledger.changing:
            row, record = await self._ledger.load(business)
            if not await self._claimed(business, tag):
                await self._claim(business, row, record, tag, phone_number)
            elif tag in record.number_tags:
                return await self._ledger.shown(business, record)
        try:
            made = await registrar.register_number(business, phone_number, record.retention_ms)
        except CallerError:  # it will never be ours: let others try
            async with self._ledger.changing:
                await self._release(tag)
            raise
        async with self._ledger.changing:
            return await self._complete(principal, business, tag, made)

    async def _claimed(self, business: BusinessId, tag: bytes) -> bool:
        row = await self._store.get(NUMBERS, number_key(tag))
        if row is None:
            return False
        number = BusinessNumberRecord.FromString(row.value)
        if number.business_id != business:
            raise AlreadyExists("the number belongs to another business")
        if number.remove_ms:
            raise Conflict("the number is being removed: add it again when that is done")
        return True

    async def _claim(
        self,
        business: BusinessId,
        row: Record,
        record: BusinessRecord,
        tag: bytes,
        phone_number: str,
    ) -> None:
        if len(record.number_tags) >= MAX_NUMBERS:
            raise Conflict(f"a business has at most {MAX_NUMBERS} numbers")
        sealed = await self._vault.seal(business, tag, phone_number)
        claim = BusinessNumberRecord(business_id=business, sealed_number=sealed)
        await self._ledger.commit(
            [
                Check(BUSINESSES, business, row.version),
                Check(NUMBERS, number_key(tag), ABSENT),
                Put(NUMBERS, number_key(tag), claim.SerializeToString()),
            ]
        )

    async def _release(self, tag: bytes) -> None:
        row = await self._store.get(NUMBERS, number_key(tag))
        if row is not None and not BusinessNumberRecord.FromString(row.value).account_id:
            key = number_key(tag)
            await self._ledger.commit([Check(NUMBERS, key, row.version), Delete(NUMBERS, key)])

    async def _complete(
        self, principal: Principal, business: BusinessId, tag: bytes, made: RegisteredNumber
    ) -> Business:
        row, record = await self._ledger.load(business)
        claim = await self._store.get(NUMBERS, number_key(tag))
        if tag in record.number_tags or claim is None:  # a call beside this one did it all
            return await self._ledger.shown(business, record)
        number = BusinessNumberRecord.FromString(claim.value)
        number.account_id, number.identity_key = made.account_id, made.identity_key
        record.number_tags.append(tag)
        await self._ledger.change(
            business,
            row,
            record,
            Put(NUMBERS, number_key(tag), number.SerializeToString()),
            Put(NUMBERS, account_key(made.account_id), tag),
            self._ledger.audit(principal, audit.Action.ADD_NUMBER, business, made.account_id.hex()),
        )
        return await self._ledger.shown(business, record)
