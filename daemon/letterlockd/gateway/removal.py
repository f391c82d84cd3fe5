"""Removes a business number from the gateway for good.

    barred here ──▶ removed at the relay ──▶ what is in hand ends ──▶ keys destroyed ──▶ rows, step
    by step ──▶ the number's own rows

Every step can be repeated, and the number's own rows go last: whoever ordered the removal
orders it again after a crash. With the keys all that they sealed is noise, so the rows are
swept up without haste. Audit and orders are the registry's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from letterlockd import failpoints
from letterlockd.gateway.held import Held
from letterlockd.gateway.inbox_rows import INBOX_TABLES
from letterlockd.gateway.numbers import NumberBook
from letterlockd.gateway.tables import (
    ASKED,
    CONVERSATIONS,
    HELD,
    IDEMPOTENCY,
    LAST_RESORT_USES,
    LOOKUPS,
    MESSAGES,
    NUMBERS,
    OUTBOX,
    PRE_KEYS,
    SEEN,
    pending_number_key,
)
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.gateway_pb2 import MessageRecord, NumberRecord, OutboxRecord
from letterlockd.sealing.keyring import STORE_SCOPE, Keyring
from letterlockd.sealing.seal import lookup_hash
from letterlockd.store.port import Delete, Record, Store, Table

__all__ = ["Deregistration", "Removal"]

_OF_ACCOUNT = (
    CONVERSATIONS,
    LOOKUPS,
    IDEMPOTENCY,
    SEEN,
    ASKED,
    LAST_RESORT_USES,
    *INBOX_TABLES,
)
"""Tables whose keys begin with the account."""

_STEP = 500
_LOOK_SECONDS = 0.1


class Deregistration(Protocol):
    """The relay, as far as it forgets numbers."""

    async def remove_business_number(self, account: AccountId, /) -> None:
        """Idempotent. Raises `LetterlockError`."""
        ...


class Removal:
    """Implements the registry's `NumberRemover`. `in_hand`: whether messages of a number are being
    worked."""

    def __init__(
        self,
        *,
        store: Store,
        keyring: Keyring,
        numbers: NumberBook,
        held: Held,
        relay: Deregistration,
        in_hand: Callable[[AccountId], bool],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._numbers = numbers
        self._held = held
        self._relay = relay
        self._in_hand = in_hand
        self._sleep = sleep

    async def remove_number(self, account: AccountId, phone_number: str) -> None:
        """Leave nothing of the number. Raises `LetterlockError` when that must wait."""
        self._numbers.bar(account)
        await self._relay.remove_business_number(account)
        failpoints.hit("gateway.removal.deregistered")
        while self._in_hand(account) or await self._has_outbox(account):
            await self._sleep(_LOOK_SECONDS)  # the relay refuses what is left: it ends soon
        row = await self._store.get(NUMBERS, account)
        if row is not None:
            key_scope = NumberRecord.FromString(row.value).key_scope
            await self._keyring.destroy(key_scope)
            await self._keyring.destroy(account)
            failpoints.hit("gateway.removal.keys_destroyed")
            await self._clear(PRE_KEYS, key_scope)
        for table in _OF_ACCOUNT:
            await self._clear(table, account)
        self._held.removed(await self._clear(HELD, account))
        await self._clear_messages(account)
        failpoints.hit("gateway.removal.cleared")
        await self._forget(account, phone_number)

    async def _has_outbox(self, account: AccountId) -> bool:
        def is_its(record: Record) -> bool:
            return OutboxRecord.FromString(record.value).conversation.startswith(account)

        async with aclosing(self._matching(OUTBOX, is_its)) as steps:
            async for keys in steps:
                if keys:
                    return True
        return False

    async def _clear(self, table: Table, prefix: bytes) -> int:
        cleared = 0
        while rows := await self._store.scan(table, prefix=prefix, limit=_STEP):
            await self._store.commit([[Delete(table, key) for key, _ in rows]])
            cleared += len(rows)
        return cleared

    async def _clear_messages(self, account: AccountId) -> None:
        def is_its(record: Record) -> bool:
            return MessageRecord.FromString(record.value).conversation.startswith(account)

        async for keys in self._matching(MESSAGES, is_its):
            if keys:
                await self._store.commit([[Delete(MESSAGES, key) for key in keys]])

    async def _matching(
        self, table: Table, is_its: Callable[[Record], bool]
    ) -> AsyncGenerator[list[bytes], None]:
        """Keys of matching rows, a step of the table at a time."""
        after = b""
        while rows := await self._store.scan(table, after=after, limit=_STEP):
            after = rows[-1][0]
            yield [key for key, record in rows if is_its(record)]
            await asyncio.sleep(0)

    async def _forget(self, account: AccountId, phone_number: str) -> None:
        scope_key = await self._keyring.scope_key(STORE_SCOPE)
        pending = pending_number_key(lookup_hash(scope_key, "number", phone_number.encode()))
        await self._store.commit([[Delete(NUMBERS, account), Delete(NUMBERS, pending)]])
