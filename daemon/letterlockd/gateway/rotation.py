"""Replaces the signed and the last-resort Kyber pre-key of every business number on a schedule, and
destroys the old ones after a grace: what a stolen pre-key opens is bounded in time.

    due ──make, commit──▶ unpublished ──upload, commit──▶ in the directory ──▶ due again
                              │ crash, relay away: uploaded again by the next look
    replaced ──grace, counted from the successor's publication──▶ destroyed

Until the successor is known to be in the directory nothing is destroyed, so bundles that are under
way open for the whole grace. Numbers turn over one after the other, each at its own time within
the interval. Ages are differences of wall-clock times: one that lies in the future says that the
clock went back, and begins again now. Knows no private key in clear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from letterlock.relay.v1 import keys_pb2

from letterlockd import failpoints
from letterlockd.clock import Clock
from letterlockd.errors import CallerError
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.numbers import NumberBook
from letterlockd.gateway.prekeys import Directory, make_pre_keys
from letterlockd.gateway.restored import DOUBTFUL_IDS
from letterlockd.gateway.rounds import Pool
from letterlockd.gateway.tables import NUMBERS, PRE_KEYS, pre_key_key
from letterlockd.model.ids import AccountId
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.records.v1.gateway_pb2 import NumberRecord
from letterlockd.sealing.keyring import Keyring
from letterlockd.store.port import Check, Delete, Put, Record, Store, StoreFull
from letterlockd.uplink import RelayUnavailable
from letterlockd.workers.outcome import WorkerLost

__all__ = ["Rotation", "Schedule"]

_log = structlog.get_logger(__name__)

_FIRST_KEY_ID = 1
"""Of the pair that a registration makes."""

_SPREAD_PART = 8
"""A number's own time lies in the last eighth of the interval."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When keys are replaced and destroyed. Pure; works on a number's record in place."""

    rotation_ms: int
    grace_ms: int

    def mend(self, record: NumberRecord, account: AccountId, now_ms: int) -> bool:
        """Give keys of unknown age one, spread over the interval, and those from the future the age
        0. Says whether anything changed."""
        keys = record.reusable_pre_keys
        before = record.SerializeToString(deterministic=True)
        if not keys:
            age_ms = (_SPREAD_PART - 1) * self._spread_ms(account)
            keys.add(
                signed_key_id=_FIRST_KEY_ID,
                last_resort_key_id=_FIRST_KEY_ID,
                publish_ms=now_ms - age_ms,
            )
        for pair in keys:
            pair.publish_ms = min(pair.publish_ms, now_ms)
        return record.SerializeToString(deterministic=True) != before

    def is_due(self, record: NumberRecord, account: AccountId, now_ms: int) -> bool:
        """Whether the newest keys are in the directory and old enough to be replaced, or are not
        the newest that were ever made."""
        if record.keys_in_doubt:
            return True
        if record.upload:
            return False
        due_ms = self.rotation_ms - self._spread_ms(account)
        return record.reusable_pre_keys[-1].publish_ms + due_ms <= now_ms

    def drop_outlived(self, record: NumberRecord, now_ms: int) -> list[Delete]:
        """Take the pairs out of the record whose grace is over; the deletions of their rows."""
        keys = record.reusable_pre_keys
        deletes: list[Delete] = []
        while len(keys) > 1 and 0 < keys[1].publish_ms <= now_ms - self.grace_ms:
            old = keys.pop(0)
            for kind, key_id in (
                (jobs.PRE_KEY_KIND_SIGNED, old.signed_key_id),
                (jobs.PRE_KEY_KIND_KYBER_LAST_RESORT, old.last_resort_key_id),
            ):
                deletes.append(Delete(PRE_KEYS, pre_key_key(record.key_scope, kind, key_id)))
        return deletes

    def _spread_ms(self, account: AccountId) -> int:
        """How long before the end of the interval a number is due: its own, and the same for
        ever."""
        fraction = int.from_bytes(account[-4:], "big") / 2**32
        return int(fraction * self.rotation_ms) // _SPREAD_PART


class Rotation:
    """Turns the keys of all business numbers of this gateway over."""

    def __init__(
        self,
        *,
        store: Store,
        keyring: Keyring,
        pool: Pool,
        directory: Directory,
        numbers: NumberBook,
        clock: Clock,
        counters: Counters,
        schedule: Schedule,
        look_seconds: float,
        withdrawn: Callable[[AccountId], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._pool = pool
        self._directory = directory
        self._numbers = numbers
        self._clock = clock
        self._counters = counters
        self._schedule = schedule
        self._look_seconds = look_seconds
        self._withdrawn = withdrawn
        self._sleep = sleep

    async def run(self) -> None:
        """Look at all numbers now and then, until cancelled."""
        while True:
            await self.look_at_all()
            await self._sleep(self._look_seconds)

    async def look_at_all(self) -> None:
        """One look: what the relay cannot take now is tried again with the next."""
        before = self._counters.key_rotations, self._counters.keys_destroyed
        for account in await self._numbers.accounts():
            try:
                await self.look_at(account)
            except CallerError as error:  # of this number alone
                _log.warning("pre_keys_refused", reason=error.reason)
            except (RelayUnavailable, StoreFull, WorkerLost) as error:
                _log.info("pre_key_rotation_waits", reason=error.reason)
                break
            await asyncio.sleep(0)
        replaced = self._counters.key_rotations - before[0]
        destroyed = self._counters.keys_destroyed - before[1]
        if replaced or destroyed:
            _log.info("pre_keys_rotated", replaced=replaced, destroyed=destroyed)

    async def look_at(self, account: AccountId) -> None:
        """Do what is due for one number: at most one pair is made. Raises `LetterlockError`."""
        row = await self._store.get(NUMBERS, account)
        if row is None:
            return
        record, now_ms = NumberRecord.FromString(row.value), self._clock.now_ms()
        changed = self._schedule.mend(record, account, now_ms)
        deletes = self._schedule.drop_outlived(record, now_ms)
        puts: list[Put] = []
        if self._schedule.is_due(record, account, now_ms):
            puts = await self._make(account, record)
        if changed or deletes or puts:
            failpoints.hit("gateway.rotation.before_commit")
            if not await self._write(account, row, record, *puts, *deletes):
                return
            failpoints.hit("gateway.rotation.after_commit")
            self._counters.keys_destroyed += len(deletes) // 2
        if record.upload:
            await self._publish(account, record.upload)

    async def _make(self, account: AccountId, record: NumberRecord) -> list[Put]:
        """Add a pair to the record; the rows of its private halves."""
        signed_id = record.reusable_pre_keys[-1].signed_key_id + 1
        if record.keys_in_doubt:
            signed_id += DOUBTFUL_IDS
            newest = record.reusable_pre_keys[-1]
            newest.publish_ms = newest.publish_ms or self._clock.now_ms()  # it may have been
        last_resort_id = record.next_kyber_pre_key_id
        task = jobs.KeyTask(signed_key_id=signed_id, last_resort_key_id=last_resort_id)
        record.upload, puts = await make_pre_keys(self._pool, self._keyring, account, record, task)
        if record.keys_in_doubt:
            withdrawing = keys_pb2.PreKeyUpload(withdraw_one_time=True)
            record.upload += withdrawing.SerializeToString()  # fields may be concatenated
            record.keys_in_doubt = False
        record.next_kyber_pre_key_id += 1
        record.reusable_pre_keys.add(signed_key_id=signed_id, last_resort_key_id=last_resort_id)
        return puts

    async def _publish(self, account: AccountId, upload: bytes) -> None:
        """Put the newest keys into the directory, where they replace the ones before; then note
        that they are there."""
        public = keys_pb2.PreKeyUpload.FromString(upload)
        await self._directory.upload_pre_keys(account, public)
        failpoints.hit("gateway.rotation.after_upload")
        if await self._note_published(account, upload):
            self._counters.key_rotations += 1
            if public.withdraw_one_time:
                self._withdrawn(account)

    async def _note_published(self, account: AccountId, upload: bytes) -> bool:
        """Again and again while a refill writes the row beside us; False when the row or the upload
        is gone. Waiting for the next look would publish, and withdraw, a second time."""
        while True:
            row = await self._store.get(NUMBERS, account)
            record = NumberRecord() if row is None else NumberRecord.FromString(row.value)
            if row is None or record.upload != upload:
                return False
            record.ClearField("upload")
            record.reusable_pre_keys[-1].publish_ms = self._clock.now_ms()
            if await self._write(account, row, record):
                return True

    async def _write(
        self, account: AccountId, row: Record, record: NumberRecord, *more: Put | Delete
    ) -> bool:
        """Commit the record; False when its row was written meanwhile: the next look goes on."""
        check = Check(NUMBERS, account, row.version)
        put = Put(NUMBERS, account, record.SerializeToString())
        (conflict,) = await self._store.commit([[check, put, *more]])
        return conflict is None
