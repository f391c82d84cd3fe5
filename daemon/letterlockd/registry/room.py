"""The registry: who may act for which business, with which number.

Every change is one commit with its audit row, made under one lock, and visible to `authenticate`
and `sender` when the call returns. A number is first claimed, then registered at the relay, then
completed, so that two businesses cannot register one number at a time and a crash in between is
mended by adding it again. Knows nothing of gRPC, and of a number's private keys nothing at all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

from letterlockd.clock import Clock
from letterlockd.errors import AlreadyExists, CallerError, Conflict, InvalidField, NotFound
from letterlockd.model.ids import AccountId, BusinessId
from letterlockd.model.number import RegisteredNumber
from letterlockd.model.phone import check_e164
from letterlockd.model.sender import Sender
from letterlockd.records.v1 import registry_pb2
from letterlockd.registry import audit, businesses, tokens
from letterlockd.registry.businesses import Business, BusinessNumber, TokenInfo
from letterlockd.registry.principals import Principal, Principals
from letterlockd.registry.senders import NumberVault, Senders
from letterlockd.registry.tables import BUSINESSES, NUMBERS, TOKENS, account_key, number_key
from letterlockd.sealing.keyring import Keyring
from letterlockd.store.port import ABSENT, Check, Commit, Delete, Put, Record, Store

__all__ = ["NumberRegistrar", "Registry"]

MAX_NUMBERS = 100
"""Numbers of a business; its row carries a tag of each."""

MAX_TOKENS = 100
"""Tokens of a business in force at a time."""

_MAX_LISTED_TOKENS = 2 * MAX_TOKENS
"""Beyond this the oldest revoked tokens leave the list; they stay revoked."""

_BusinessRecord = registry_pb2.BusinessRecord
_NumberRecord = registry_pb2.BusinessNumberRecord


class NumberRegistrar(Protocol):
    """Makes a number's identity and registers it with the relay; the gateway's part."""

    async def register_number(
        self, business_id: BusinessId, phone_number: str, retention_ms: int
    ) -> RegisteredNumber:
        """Idempotent: the same number again gives the same account and key."""
        ...


class Registry:
    """The registry's room over its own store."""

    def __init__(
        self,
        store: Store,
        keyring: Keyring,
        clock: Clock,
        *,
        operator_digest: bytes,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._clock = clock
        self._random = random
        self._vault = NumberVault(keyring)
        self._changing = asyncio.Lock()
        self._senders = Senders(store, self._vault)
        self._principals = Principals(store, operator_digest)
        self.authenticate = self._principals.authenticate
        self.watch = self._principals.watch

    async def sender(self, principal: Principal, business_number: str) -> Sender:
        """See `Senders.sender`."""
        return await self._senders.sender(principal, business_number)

    async def sender_by_account(self, account: AccountId) -> Sender | None:
        """See `Senders.sender_by_account`."""
        return await self._senders.sender_by_account(account)

    async def create_business(
        self, principal: Principal, display_name: str, retention_ms: int
    ) -> Business:
        """A new business without numbers and tokens. Operator only."""
        businesses.check_operator(principal)
        businesses.check_name(display_name)
        businesses.check_retention(retention_ms)
        business = BusinessId(self._random(16))
        record = _BusinessRecord(
            display_name=display_name, retention_ms=retention_ms, create_ms=self._clock.now_ms()
        )
        await self._commit(
            [
                Check(BUSINESSES, business, ABSENT),
                Put(BUSINESSES, business, record.SerializeToString()),
                self._audit(principal, audit.Action.CREATE_BUSINESS, business),
            ]
        )
        return await self._shown(business, record)

    async def business(self, principal: Principal, business: BusinessId) -> Business:
        """One business, to the operator and to itself; `Forbidden` to others."""
        businesses.check_may_read(principal, business)
        _, record = await self._load(business)
        return await self._shown(business, record)

    async def list_businesses(
        self, principal: Principal, *, after: bytes, limit: int
    ) -> tuple[list[Business], bytes]:
        """At most `limit` (1 to 1,000) businesses after an id, and the id to go on after; empty
        when these are the last."""
        businesses.check_operator(principal)
        rows = await self._store.scan(BUSINESSES, after=after, limit=limit + 1)
        page = [
            await self._shown(BusinessId(key), _BusinessRecord.FromString(row.value))
            for key, row in rows[:limit]
        ]
        return page, rows[limit - 1][0] if len(rows) > limit else b""

    async def add_number(
        self,
        principal: Principal,
        business: BusinessId,
        phone_number: str,
        registrar: NumberRegistrar,
    ) -> Business:
        """Give a business a number. `AlreadyExists` when another business has it; adding it again
        changes nothing."""
        businesses.check_operator(principal)
        check_e164(phone_number, "phone_number")
        tag = await self._vault.tag(phone_number)
        async with self._changing:
            row, record = await self._load(business)
            if not await self._claimed(business, tag):
                await self._claim(business, row, record, tag, phone_number)
            elif tag in record.number_tags:
                return await self._shown(business, record)
        try:
            made = await registrar.register_number(business, phone_number, record.retention_ms)
        except CallerError:  # it will never be ours: let others try
            async with self._changing:
                await self._release(tag)
            raise
        async with self._changing:
            return await self._complete(principal, business, tag, made)

    async def issue_token(
        self, principal: Principal, business: BusinessId, label: str
    ) -> tuple[str, str]:
        """A new token's text, shown here and never again, and its id. Operator only."""
        businesses.check_operator(principal)
        businesses.check_label(label)
        text, bearer = tokens.mint(self._random)
        async with self._changing:
            row, record = await self._load(business)
            if sum(not token.revoke_ms for token in record.tokens) >= MAX_TOKENS:
                raise Conflict(f"a business has at most {MAX_TOKENS} tokens: revoke one")
            token_id = bytes.fromhex(bearer.token_id)
            _drop_oldest_revoked(record)
            now_ms = self._clock.now_ms()
            record.tokens.add(token_id=token_id, label=label, create_ms=now_ms)
            kept = registry_pb2.TokenRecord(business_id=business, digest=bearer.digest)
            await self._change(
                business,
                row,
                record,
                Check(TOKENS, token_id, ABSENT),
                Put(TOKENS, token_id, kept.SerializeToString()),
                self._audit(principal, audit.Action.ISSUE_TOKEN, business, bearer.token_id),
            )
        return text, bearer.token_id

    async def revoke_token(self, principal: Principal, business: BusinessId, token_id: str) -> None:
        """End a token: durably, then for everybody who is in with it. Again: changes nothing.
        `NotFound` when the business has no such token."""
        businesses.check_operator(principal)
        if len(token_id) != 16 or not set(token_id) <= set("0123456789abcdef"):
            raise InvalidField("token_id", "16 characters of lower-case hex")
        async with self._changing:
            row, record = await self._load(business)
            summary = next((t for t in record.tokens if t.token_id.hex() == token_id), None)
            if summary is None:
                raise NotFound("the business has no token with this id")
            if summary.revoke_ms:
                return
            summary.revoke_ms = self._clock.now_ms()
            ended = registry_pb2.TokenRecord(business_id=business, revoke_ms=summary.revoke_ms)
            await self._change(
                business,
                row,
                record,
                Put(TOKENS, summary.token_id, ended.SerializeToString()),
                self._audit(principal, audit.Action.REVOKE_TOKEN, business, token_id),
            )
            self._principals.announce_revoked(token_id)

    async def _load(self, business: BusinessId) -> tuple[Record, _BusinessRecord]:
        row = await self._store.get(BUSINESSES, business)
        if row is None:
            raise businesses.unknown_business()
        return row, _BusinessRecord.FromString(row.value)

    async def _claimed(self, business: BusinessId, tag: bytes) -> bool:
        row = await self._store.get(NUMBERS, number_key(tag))
        if row is None:
            return False
        if _NumberRecord.FromString(row.value).business_id != business:
            raise AlreadyExists("the number belongs to another business")
        return True

    async def _claim(
        self,
        business: BusinessId,
        row: Record,
        record: _BusinessRecord,
        tag: bytes,
        phone_number: str,
    ) -> None:
        if len(record.number_tags) >= MAX_NUMBERS:
            raise Conflict(f"a business has at most {MAX_NUMBERS} numbers")
        sealed = await self._vault.seal(business, tag, phone_number)
        claim = _NumberRecord(business_id=business, sealed_number=sealed)
        await self._commit(
            [
                Check(BUSINESSES, business, row.version),
                Check(NUMBERS, number_key(tag), ABSENT),
                Put(NUMBERS, number_key(tag), claim.SerializeToString()),
            ]
        )

    async def _release(self, tag: bytes) -> None:
        row = await self._store.get(NUMBERS, number_key(tag))
        if row is not None and not _NumberRecord.FromString(row.value).account_id:
            key = number_key(tag)
            await self._commit([Check(NUMBERS, key, row.version), Delete(NUMBERS, key)])

    async def _complete(
        self, principal: Principal, business: BusinessId, tag: bytes, made: RegisteredNumber
    ) -> Business:
        row, record = await self._load(business)
        claim = await self._store.get(NUMBERS, number_key(tag))
        if tag in record.number_tags or claim is None:  # a call beside this one did it all
            return await self._shown(business, record)
        number = _NumberRecord.FromString(claim.value)
        number.account_id, number.identity_key = made.account_id, made.identity_key
        record.number_tags.append(tag)
        await self._change(
            business,
            row,
            record,
            Put(NUMBERS, number_key(tag), number.SerializeToString()),
            Put(NUMBERS, account_key(made.account_id), tag),
            self._audit(principal, audit.Action.ADD_NUMBER, business, made.account_id.hex()),
        )
        return await self._shown(business, record)

    async def _change(
        self, business: BusinessId, row: Record, record: _BusinessRecord, *more: Put | Check
    ) -> None:
        await self._commit(
            [
                Check(BUSINESSES, business, row.version),
                Put(BUSINESSES, business, record.SerializeToString()),
                *more,
            ]
        )

    async def _commit(self, commit: Commit) -> None:
        (conflict,) = await self._store.commit([commit])
        if conflict is not None:
            raise Conflict("it was changed meanwhile: try again")

    def _audit(
        self, principal: Principal, action: audit.Action, business: BusinessId, thing: str = ""
    ) -> Put:
        now_ms = self._clock.now_ms()
        return audit.entry(now_ms, self._random, principal, action, business, thing)

    async def _shown(self, business: BusinessId, record: _BusinessRecord) -> Business:
        tags = list(record.number_tags)
        rows = await self._store.get_many(NUMBERS, [number_key(tag) for tag in tags])
        numbers = [
            await self._shown_number(tag, _NumberRecord.FromString(row.value))
            for tag, row in zip(tags, rows, strict=True)
            if row is not None
        ]
        return Business(
            business,
            record.display_name,
            record.retention_ms,
            record.create_ms,
            tuple(numbers),
            tuple(
                TokenInfo(t.token_id.hex(), t.label, t.create_ms, t.revoke_ms or None)
                for t in record.tokens
            ),
        )

    async def _shown_number(self, tag: bytes, record: _NumberRecord) -> BusinessNumber:
        number = await self._vault.open(tag, record)
        return BusinessNumber(number, AccountId(record.account_id), record.identity_key)


def _drop_oldest_revoked(record: _BusinessRecord) -> None:
    if len(record.tokens) >= _MAX_LISTED_TOKENS:
        oldest = next(at for at, token in enumerate(record.tokens) if token.revoke_ms)
        del record.tokens[oldest]
