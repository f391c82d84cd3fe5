"""Keeps one-time pre-keys in stock at the relay: without them first messages lose a layer of
forward secrecy, and fall back on the last-resort key (whose turn-over is `rotation`'s part).

    start, a number is new, keys are used up, daily ──▶ count ──▶ too few ──▶ make, commit, publish

The private halves are durable before the public ones are published: a public key whose private
half is lost makes a message that nobody can open. Ids are never used twice.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog
from letterlock.relay.v1 import keys_pb2

from letterlockd.errors import LetterlockError
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.numbers import NumberBook
from letterlockd.gateway.rounds import Pool
from letterlockd.gateway.tables import NUMBERS, PRE_KEYS, pre_key_key
from letterlockd.model.ids import AccountId
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.records.v1.gateway_pb2 import NumberRecord
from letterlockd.sealing.keyring import Keyring
from letterlockd.store.port import Check, Put, Store

__all__ = ["Directory", "PreKeyStock", "make_pre_keys"]

_log = structlog.get_logger(__name__)

FULL_STOCK = 100
"""Published of each kind: what one upload may hold, and half of what the directory keeps."""

LOW_STOCK = 50
"""Below this new ones are made. A campaign's answers can take fifty in the time of an upload."""

_RETRY_SECONDS = 10.0

_Stock = list[int]
"""One-time keys left: EC, Kyber."""


class Directory(Protocol):
    """The relay's directory of our own keys."""

    async def pre_key_count(self, account: AccountId, /) -> keys_pb2.GetPreKeyCountResponse:
        """How many are left. Raises `LetterlockError`."""
        ...

    async def upload_pre_keys(
        self, account: AccountId, upload: keys_pb2.PreKeyUpload, /
    ) -> keys_pb2.GetPreKeyCountResponse:
        """Publish. Raises `LetterlockError`."""
        ...


async def make_pre_keys(
    pool: Pool, keyring: Keyring, account: AccountId, record: NumberRecord, task: jobs.KeyTask
) -> tuple[bytes, list[Put]]:
    """The keys that `task` names, made by a worker for the number of `record`: a serialised
    PreKeyUpload, and the rows of the private halves. Raises `WorkerLost`."""
    task.scope_key = await keyring.scope_key(record.key_scope)
    task.account_id = record.key_scope
    task.sealed_identity = record.sealed_identity
    made = (await pool.run(pool.lane_of(account), jobs.Job(keys=task))).keys
    return made.upload, [
        Put(PRE_KEYS, pre_key_key(record.key_scope, key.kind, key.key_id), key.sealed)
        for key in made.pre_keys
    ]


class PreKeyStock:
    """Stocks of all business numbers of this gateway."""

    def __init__(
        self,
        *,
        store: Store,
        keyring: Keyring,
        pool: Pool,
        directory: Directory,
        numbers: NumberBook,
        counters: Counters,
        recount_seconds: float,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._pool = pool
        self._directory = directory
        self._numbers = numbers
        self._counters = counters
        self._recount_seconds = recount_seconds
        self._stocks: dict[AccountId, _Stock] = {}
        self._to_count: dict[AccountId, None] = {}
        self._news = asyncio.Event()

    def check(self, account: AccountId) -> None:
        """Count this number's keys soon."""
        self._to_count[account] = None
        self._news.set()

    def used(self, account: AccountId, one_time: int, kyber: int) -> None:
        """Messages of users have used up keys."""
        stock = self._stocks.get(account)
        if stock is None:
            return
        stock[0] -= one_time
        stock[1] -= kyber
        if min(stock) < LOW_STOCK:
            self.check(account)

    async def run(self) -> None:
        """Keep the stocks until cancelled."""
        while True:
            for account in await self._numbers.accounts():
                self.check(account)
            try:
                async with asyncio.timeout(self._recount_seconds):
                    await self._work()
            except TimeoutError:
                continue

    async def _work(self) -> None:
        while True:
            while not self._to_count:
                self._news.clear()
                await self._news.wait()
            account = next(iter(self._to_count))
            del self._to_count[account]
            try:
                await self.refill(account)
            except LetterlockError as error:
                _log.info("pre_key_refill_waits", reason=error.reason)
                self._to_count[account] = None  # behind the others
                await asyncio.sleep(_RETRY_SECONDS)

    async def refill(self, account: AccountId) -> None:
        """Count, and publish what is missing. Raises `LetterlockError` when that must wait."""
        # Counting first also makes sure that the relay is there, before keys are made for it.
        count = await self._directory.pre_key_count(account)
        stock = [count.one_time_pre_keys, count.one_time_kyber_pre_keys]
        if min(stock) < LOW_STOCK:
            upload = await self._make(account, *(max(0, FULL_STOCK - left) for left in stock))
            if upload is None:
                return
            count = await self._directory.upload_pre_keys(account, upload)
            self._counters.key_uploads += 1
        self._stocks[account] = [count.one_time_pre_keys, count.one_time_kyber_pre_keys]

    async def _make(
        self, account: AccountId, one_time: int, kyber: int
    ) -> keys_pb2.PreKeyUpload | None:
        """Public halves whose private ones are durable; None: the number is none of ours."""
        row = await self._store.get(NUMBERS, account)
        if row is None:
            return None
        record = NumberRecord.FromString(row.value)
        first, first_kyber = record.next_pre_key_id, record.next_kyber_pre_key_id
        record.next_pre_key_id += one_time
        record.next_kyber_pre_key_id += kyber
        task = jobs.KeyTask(
            one_time_key_ids=range(first, first + one_time),
            one_time_kyber_key_ids=range(first_kyber, first_kyber + kyber),
        )
        upload, writes = await make_pre_keys(self._pool, self._keyring, account, record, task)
        reserved = Put(NUMBERS, account, record.SerializeToString())
        check = Check(NUMBERS, account, row.version)
        (outcome,) = await self._store.commit([[check, reserved, *writes]])
        if outcome is not None:  # the row was written meanwhile: the ids may be taken
            return await self._make(account, one_time, kyber)
        return keys_pb2.PreKeyUpload.FromString(upload)
