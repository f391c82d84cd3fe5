"""The registry: who may act for which business, with which number.

Every change is one commit with its audit row, made under one lock, and visible to `authenticate`
and `sender` when the call returns. Knows nothing of gRPC, and of a number's private keys nothing at
all.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from letterlockd.clock import Clock
from letterlockd.errors import Conflict, InvalidField, NotFound
from letterlockd.model.ids import AccountId, BusinessId
from letterlockd.model.sender import Sender
from letterlockd.records.v1 import registry_pb2
from letterlockd.registry import audit, businesses, tokens
from letterlockd.registry.businesses import Business
from letterlockd.registry.enrolment import Enrolment, NumberRegistrar
from letterlockd.registry.ledger import Ledger
from letterlockd.registry.principals import Principal, Principals
from letterlockd.registry.removal import NumberRemover, Removals
from letterlockd.registry.senders import NumberVault, Senders
from letterlockd.registry.tables import AUDIT, BUSINESSES, TOKENS
from letterlockd.sealing.keyring import Keyring
from letterlockd.store.port import ABSENT, Check, Put, Store

__all__ = ["Registry"]

MAX_TOKENS = 100
"""Tokens of a business in force at a time."""

_MAX_LISTED_TOKENS = 2 * MAX_TOKENS
"""Beyond this the oldest revoked tokens leave the list; they stay revoked."""

_BusinessRecord = registry_pb2.BusinessRecord


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
        vault = NumberVault(keyring)
        self._ledger = Ledger(store, vault, clock, random)
        self._enrolment = Enrolment(store, self._ledger, vault)
        self._senders = Senders(store, vault)
        self._principals = Principals(store, operator_digest)
        self._removals = Removals(
            store, keyring, self._ledger, vault, self._senders, self._principals, clock
        )
        self.finish_removals = self._removals.run
        self.watch_number = self._senders.watch
        self.authenticate = self._principals.authenticate
        self.watch = self._principals.watch

    async def sender(self, principal: Principal, business_number: str) -> Sender:
        """See `Senders.sender`."""
        return await self._senders.sender(principal, business_number)

    async def sender_by_account(self, account: AccountId) -> Sender | None:
        """See `Senders.sender_by_account`."""
        return await self._senders.sender_by_account(account)

    async def create_business(
        self,
        principal: Principal,
        display_name: str,
        retention_ms: int,
        *,
        hold_identity_changes: bool = False,
    ) -> Business:
        """A new business without numbers and tokens. Operator only."""
        businesses.check_operator(principal)
        businesses.check_name(display_name)
        businesses.check_retention(retention_ms)
        business = BusinessId(self._random(16))
        record = _BusinessRecord(
            display_name=display_name,
            retention_ms=retention_ms,
            create_ms=self._clock.now_ms(),
            hold_identity_changes=hold_identity_changes,
        )
        await self._ledger.commit(
            [
                Check(BUSINESSES, business, ABSENT),
                Put(BUSINESSES, business, record.SerializeToString()),
                self._ledger.audit(principal, audit.Action.CREATE_BUSINESS, business),
            ]
        )
        return await self._ledger.shown(business, record)

    async def update_business(
        self,
        principal: Principal,
        business: BusinessId,
        registrar: NumberRegistrar,
        *,
        display_name: str | None = None,
        hold_identity_changes: bool | None = None,
        retention_ms: int | None = None,
    ) -> Business:
        """Change what is given. In force when this returns. Operator only.

        A retention is told to the relay first, without a lock: what fails there changes nothing
        here, and can be repeated.
        """
        businesses.check_operator(principal)
        if display_name is not None:
            businesses.check_name(display_name)
        if retention_ms is not None:
            businesses.check_retention(retention_ms)
            for number in (await self.business(principal, business)).numbers:
                await registrar.set_retention(number.account_id, retention_ms)
        async with self._ledger.changing:
            row, record = await self._ledger.load(business)
            if display_name is not None:
                record.display_name = display_name
            if hold_identity_changes is not None:
                record.hold_identity_changes = hold_identity_changes
            if retention_ms is not None:
                record.retention_ms = retention_ms
            policy = "hold" if record.hold_identity_changes else "accept"
            in_force = f"identity-changes={policy} retention={record.retention_ms // 1000}s"
            action = audit.Action.UPDATE_BUSINESS
            done = self._ledger.audit(principal, action, business, in_force)
            await self._ledger.change(business, row, record, done)
            self._senders.forget()
        return await self._ledger.shown(business, record)

    async def business(self, principal: Principal, business: BusinessId) -> Business:
        """One business, to the operator and to itself; `Forbidden` to others."""
        businesses.check_may_read(principal, business)
        _, record = await self._ledger.load(business)
        return await self._ledger.shown(business, record)

    async def list_businesses(
        self, principal: Principal, *, after: bytes, limit: int
    ) -> tuple[list[Business], bytes]:
        """At most `limit` (1 to 1,000) businesses after an id, and the id to go on after; empty
        when these are the last."""
        businesses.check_operator(principal)
        rows = await self._store.scan(BUSINESSES, after=after, limit=limit + 1)
        page = [
            await self._ledger.shown(BusinessId(key), record)
            for key, row in rows[:limit]
            if not (record := _BusinessRecord.FromString(row.value)).remove_ms
        ]
        return page, rows[limit - 1][0] if len(rows) > limit else b""

    async def add_number(
        self,
        principal: Principal,
        business: BusinessId,
        phone_number: str,
        registrar: NumberRegistrar,
    ) -> Business:
        """See `Enrolment.add_number`. Operator only."""
        businesses.check_operator(principal)
        return await self._enrolment.add_number(principal, business, phone_number, registrar)

    async def remove_number(
        self,
        principal: Principal,
        business: BusinessId,
        phone_number: str,
        remover: NumberRemover,
    ) -> Business:
        """See `Removals.remove_number`. Operator only."""
        businesses.check_operator(principal)
        await self._removals.remove_number(principal, business, phone_number, remover)
        _, record = await self._ledger.load(business)
        return await self._ledger.shown(business, record)

    async def delete_business(
        self, principal: Principal, business: BusinessId, remover: NumberRemover
    ) -> None:
        """See `Removals.delete_business`. Operator only."""
        businesses.check_operator(principal)
        await self._removals.delete_business(principal, business, remover)

    async def list_audit(
        self, principal: Principal, *, after: bytes, limit: int
    ) -> tuple[list[registry_pb2.AuditRecord], bytes]:
        """At most `limit` (1 to 1,000) entries after a key, oldest first, and the key to go on
        after; empty when these are the last. Operator only."""
        businesses.check_operator(principal)
        rows = await self._store.scan(AUDIT, after=after, limit=limit + 1)
        page = [registry_pb2.AuditRecord.FromString(row.value) for _, row in rows[:limit]]
        return page, rows[limit - 1][0] if len(rows) > limit else b""

    async def issue_token(
        self, principal: Principal, business: BusinessId, label: str
    ) -> tuple[str, str]:
        """A new token's text, shown here and never again, and its id. Operator only."""
        businesses.check_operator(principal)
        businesses.check_label(label)
        text, bearer = tokens.mint(self._random)
        async with self._ledger.changing:
            row, record = await self._ledger.load(business)
            if sum(not token.revoke_ms for token in record.tokens) >= MAX_TOKENS:
                raise Conflict(f"a business has at most {MAX_TOKENS} tokens: revoke one")
            token_id = bytes.fromhex(bearer.token_id)
            _drop_oldest_revoked(record)
            now_ms = self._clock.now_ms()
            record.tokens.add(token_id=token_id, label=label, create_ms=now_ms)
            kept = registry_pb2.TokenRecord(business_id=business, digest=bearer.digest)
            await self._ledger.change(
                business,
                row,
                record,
                Check(TOKENS, token_id, ABSENT),
                Put(TOKENS, token_id, kept.SerializeToString()),
                self._ledger.audit(principal, audit.Action.ISSUE_TOKEN, business, bearer.token_id),
            )
        return text, bearer.token_id

    async def revoke_token(self, principal: Principal, business: BusinessId, token_id: str) -> None:
        """End a token: durably, then for everybody who is in with it. Again: changes nothing.
        `NotFound` when the business has no such token."""
        businesses.check_operator(principal)
        if len(token_id) != 16 or not set(token_id) <= set("0123456789abcdef"):
            raise InvalidField("token_id", "16 characters of lower-case hex")
        async with self._ledger.changing:
            row, record = await self._ledger.load(business)
            summary = next((t for t in record.tokens if t.token_id.hex() == token_id), None)
            if summary is None:
                raise NotFound("the business has no token with this id")
            if summary.revoke_ms:
                return
            summary.revoke_ms = self._clock.now_ms()
            ended = registry_pb2.TokenRecord(business_id=business, revoke_ms=summary.revoke_ms)
            await self._ledger.change(
                business,
                row,
                record,
                Put(TOKENS, summary.token_id, ended.SerializeToString()),
                self._ledger.audit(principal, audit.Action.REVOKE_TOKEN, business, token_id),
            )
            self._principals.announce_revoked(token_id)


def _drop_oldest_revoked(record: _BusinessRecord) -> None:
    if len(record.tokens) >= _MAX_LISTED_TOKENS:
        oldest = next(at for at, token in enumerate(record.tokens) if token.revoke_ms)
        del record.tokens[oldest]
