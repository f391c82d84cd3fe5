"""Makes a business number's identity and registers it with the relay.

    nothing ──keys made, committed──▶ pending ──relay registers──▶ account ──committed──▶ finished

Every step can be repeated: the pending row keeps identity and first pre-keys, and the relay gives
the same account for the same identity key. Private keys are durable before anything is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from letterlock.relay.v1 import accounts_pb2, keys_pb2

from letterlockd.errors import BrokenInvariant
from letterlockd.gateway.rounds import Pool
from letterlockd.gateway.tables import NUMBERS, PRE_KEYS, pending_number_key, pre_key_key
from letterlockd.model.ids import ID_BYTES, AccountId, BusinessId
from letterlockd.model.number import RegisteredNumber
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.records.v1.gateway_pb2 import NumberRecord
from letterlockd.sealing.keyring import STORE_SCOPE, Keyring
from letterlockd.sealing.seal import lookup_hash
from letterlockd.store.port import ABSENT, Check, Put, Store

__all__ = ["Identities", "Registration"]

_FIRST_KEY_ID = 1


class Registration(Protocol):
    """The relay, as far as it registers."""

    async def register_business_number(
        self, request: accounts_pb2.RegisterBusinessNumberRequest, /
    ) -> AccountId:
        """The account; the same for the same identity key. Raises `LetterlockError`."""
        ...

    async def set_retention(self, account: AccountId, retention_ms: int, /) -> None:
        """Idempotent. Raises `LetterlockError`."""
        ...


class Identities:
    """Implements the registry's `NumberRegistrar`. `finished`: told of each new account."""

    def __init__(
        self,
        *,
        store: Store,
        keyring: Keyring,
        pool: Pool,
        relay: Registration,
        random: Callable[[int], bytes],
        finished: Callable[[AccountId], None],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._pool = pool
        self._relay = relay
        self._random = random
        self._finished = finished
        self._one_at_a_time = asyncio.Lock()

    async def register_number(
        self, business_id: BusinessId, phone_number: str, retention_ms: int
    ) -> RegisteredNumber:
        """Make the number's keys and account, or finish what was begun, or tell what is there."""
        scope_key = await self._keyring.scope_key(STORE_SCOPE)
        key = pending_number_key(lookup_hash(scope_key, "number", phone_number.encode()))
        async with self._one_at_a_time:
            record = await self._pending(key, business_id)
            if not record.account_id:
                await self._finish(key, record, phone_number, retention_ms)
        return RegisteredNumber(AccountId(record.account_id), record.identity_key)

    async def set_retention(self, account: AccountId, retention_ms: int) -> None:
        """Have the relay bound what waits for a number. Raises `LetterlockError`."""
        await self._relay.set_retention(account, retention_ms)

    async def _pending(self, key: bytes, business_id: BusinessId) -> NumberRecord:
        row = await self._store.get(NUMBERS, key)
        if row is not None:
            return NumberRecord.FromString(row.value)
        key_scope = self._random(ID_BYTES)
        task = jobs.KeyTask(
            scope_key=await self._keyring.scope_key(key_scope),
            account_id=key_scope,
            signed_key_id=_FIRST_KEY_ID,
            last_resort_key_id=_FIRST_KEY_ID,
        )
        answer = await self._pool.run(self._pool.lane_of(key_scope), jobs.Job(keys=task))
        made = answer.keys
        record = NumberRecord(
            business_id=business_id,
            key_scope=key_scope,
            sealed_identity=made.sealed_identity,
            identity_key=made.identity_key,
            registration_id=made.registration_id,
            next_pre_key_id=_FIRST_KEY_ID,
            next_kyber_pre_key_id=_FIRST_KEY_ID + 1,
            upload=made.upload,
        )
        writes = [
            Put(PRE_KEYS, pre_key_key(key_scope, made_key.kind, made_key.key_id), made_key.sealed)
            for made_key in made.pre_keys
        ]
        pending = Put(NUMBERS, key, record.SerializeToString())
        (outcome,) = await self._store.commit([[Check(NUMBERS, key, ABSENT), pending, *writes]])
        if outcome is not None:
            raise BrokenInvariant("a number was registered twice at a time")
        return record

    async def _finish(
        self, key: bytes, record: NumberRecord, phone_number: str, retention_ms: int
    ) -> None:
        request = accounts_pb2.RegisterBusinessNumberRequest(
            phone_number=phone_number,
            identity_key=record.identity_key,
            registration_id=record.registration_id,
            pre_keys=keys_pb2.PreKeyUpload.FromString(record.upload),
        )
        request.retention.FromMilliseconds(retention_ms)
        account = await self._relay.register_business_number(request)
        record.account_id = account
        record.ClearField("upload")
        value = record.SerializeToString()
        await self._store.commit([[Put(NUMBERS, key, value), Put(NUMBERS, account, value)]])
        self._finished(account)
