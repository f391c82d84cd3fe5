"""The rows of businesses and their numbers: read, shown, and changed together with the audit trail.

One writer at a time: whoever changes holds `changing`. Decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from letterlockd.clock import Clock
from letterlockd.errors import Conflict
from letterlockd.model.ids import AccountId, BusinessId
from letterlockd.records.v1.registry_pb2 import BusinessNumberRecord, BusinessRecord
from letterlockd.registry import audit
from letterlockd.registry.businesses import Business, BusinessNumber, TokenInfo, unknown_business
from letterlockd.registry.principals import Principal
from letterlockd.registry.senders import NumberVault
from letterlockd.registry.tables import BUSINESSES, NUMBERS, number_key
from letterlockd.store.port import Check, Commit, Delete, Put, Record, Store

__all__ = ["Ledger"]


class Ledger:
    """The registry's rows. `changing` is taken for every change that reads before it writes."""

    def __init__(
        self, store: Store, vault: NumberVault, clock: Clock, random: Callable[[int], bytes]
    ) -> None:
        self.changing = asyncio.Lock()
        self._store = store
        self._vault = vault
        self._clock = clock
        self._random = random

    async def load(self, business: BusinessId) -> tuple[Record, BusinessRecord]:
        """The row and record of a business; `NotFound`, also when it is being removed."""
        row, record = await self.load_leaving(business)
        if record.remove_ms:
            raise unknown_business()
        return row, record

    async def load_leaving(self, business: BusinessId) -> tuple[Record, BusinessRecord]:
        """As `load`, also while it is being removed."""
        row = await self._store.get(BUSINESSES, business)
        if row is None:
            raise unknown_business()
        return row, BusinessRecord.FromString(row.value)

    async def change(
        self, business: BusinessId, row: Record, record: BusinessRecord, *more: Put | Check | Delete
    ) -> None:
        """Replace a business's record, and `more`, in one commit; `Conflict` when the record was
        changed since `row` was read."""
        await self.commit(
            [
                Check(BUSINESSES, business, row.version),
                Put(BUSINESSES, business, record.SerializeToString()),
                *more,
            ]
        )

    async def commit(self, commit: Commit) -> None:
        """Make one commit durable; `Conflict` when a check failed."""
        (conflict,) = await self._store.commit([commit])
        if conflict is not None:
            raise Conflict("it was changed meanwhile: try again")

    def audit(
        self, principal: Principal, action: audit.Action, business: BusinessId, thing: str = ""
    ) -> Put:
        """The audit row for a change made now."""
        now_ms = self._clock.now_ms()
        return audit.entry(now_ms, self._random, principal, action, business, thing)

    async def shown(self, business: BusinessId, record: BusinessRecord) -> Business:
        """The business with its numbers opened."""
        tags = list(record.number_tags)
        rows = await self._store.get_many(NUMBERS, [number_key(tag) for tag in tags])
        numbers = [
            await self._shown_number(tag, number)
            for tag, row in zip(tags, rows, strict=True)
            if row is not None
            and not (number := BusinessNumberRecord.FromString(row.value)).remove_ms
        ]
        return Business(
            business,
            record.display_name,
            record.retention_ms,
            record.create_ms,
            record.hold_identity_changes,
            tuple(numbers),
            tuple(
                TokenInfo(t.token_id.hex(), t.label, t.create_ms, t.revoke_ms or None)
                for t in record.tokens
            ),
        )

    async def _shown_number(self, tag: bytes, record: BusinessNumberRecord) -> BusinessNumber:
        number = await self._vault.open(tag, record)
        return BusinessNumber(number, AccountId(record.account_id), record.identity_key)
