"""How turns become jobs and commits: conflicts, sizes, read receipts, lost stores."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest
import structlog
from letterlock.v1 import errors_pb2
from letterlock.v1 import messaging_pb2 as api
from letterlockd import failpoints
from letterlockd.gateway import lanes, tables
from letterlockd.records.v1 import jobs_pb2
from letterlockd.store.port import Commit, CommitConflict, Outcome, Put, StoreFull, StoreUnavailable
from letterlockd.workers.outcome import WorkerLost

from tests.harness.clock import settle, until
from tests.harness.gateway import (
    GatewayStore,
    LocalPool,
    World,
    message,
    outbox_empty,
    reading,
)

USER = "+4915112345678"


class ConflictingStore(GatewayStore):
    """Says, so many times, that a conversation's row was changed by somebody else."""

    times = 0

    async def commit(self, commits: Sequence[Commit]) -> list[Outcome]:
        for commit in commits:
            for operation in commit:
                if self.times and isinstance(operation, Put) and _is_conversation(operation):
                    self.times -= 1
                    conflict = CommitConflict(tables.CONVERSATIONS, operation.key, 99)
                    return [conflict] * len(commits)
        return await super().commit(commits)


def _is_conversation(operation: Put) -> bool:
    return operation.table == tables.CONVERSATIONS


async def test_a_conflict_is_worked_again_once(world: World) -> None:
    store = ConflictingStore()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        store.times = 1
        (result,) = await business.send(message("a", to=USER, text="a"))
        assert result.HasField("accepted")
        store.times = 2
        with structlog.testing.capture_logs() as logs:
            (result,) = await business.send(message("b", to=USER, text="b"))
        assert result.refused.reason == errors_pb2.ERROR_REASON_INTERNAL
        (result,) = await business.send(message("b", to=USER, text="b"))
        assert result.HasField("accepted")
        assert await reader.texts(2) == ["a", "b"]
        assert gateway.counters.conflicts == 3
        assert {entry["event"] for entry in logs} == {"commit_conflict"}


async def test_jobs_are_bounded_in_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [f"+49151123400{n:02d}" for n in range(6)]
    devices = [await world.device(user) for user in users]
    pool = LocalPool(size=1)
    sizes: list[int] = []
    pool.twist = lambda job, result: sizes.append(len(job.tasks))
    monkeypatch.setattr(lanes, "_MAX_JOB_BYTES", 1)
    async with world.gateway(pool=pool) as gateway, reading(*devices) as readers:
        business = await world.business(gateway)
        results = await business.send(*(message(user, to=user) for user in users))
        assert all(result.HasField("accepted") for result in results)
        for reader in readers:
            assert await reader.texts(1) == ["hello"]
    assert max(sizes) == 1


async def test_a_lost_worker_refuses_what_is_sent_and_keeps_what_came(world: World) -> None:
    class LosingPool(LocalPool):
        lost = False

        async def run(self, lane: int, job: jobs_pb2.Job) -> jobs_pb2.JobResult:
            if self.lost:
                raise WorkerLost("no ratchet worker could be started")
            return await super().run(lane, job)

    pool = LosingPool()
    async with world.gateway(pool=pool) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await business.send(message("a", to=USER))
        await reader.texts(1)
        pool.lost = True
        await reader.device.send_text(reader.business, "kept")
        (result,) = await business.send(message("b", to=USER))
        assert result.refused.reason == errors_pb2.ERROR_REASON_INTERNAL
        assert result.refused.retry_after.ToMilliseconds() > 0
        pool.lost = False
        await business.inbound(1)


async def lose_the_store(world: World) -> None:
    store = GatewayStore()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        store.lose()
        await business.send(message("a", user="00" * 16))


async def test_a_lost_store_ends_the_core(world: World) -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        await lose_the_store(world)
    assert raised.group_contains(StoreUnavailable)


async def test_a_read_receipt_reaches_only_its_own_conversation(world: World) -> None:
    devices = [await world.device("+4915112340001"), await world.device("+4915112340002")]
    async with world.gateway() as gateway, reading(*devices) as (one, other):
        business = await world.business(gateway)
        (first,) = await business.send(message("a", to="+4915112340001"))
        (second,) = await business.send(message("b", to="+4915112340002"))
        for reader, result in ((one, first), (other, second)):
            await reader.texts(1)
            await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
        stolen = bytes.fromhex(first.accepted.message_id)
        own = bytes.fromhex(second.accepted.message_id)
        await other.device.send_read_receipt(other.business, [stolen, own])
        await business.status(second.accepted.message_id, api.MESSAGE_STATUS_READ)
        state = await gateway.outbound.message(
            business.sender, message_id=None, idempotency_key="a"
        )
        assert state.status == api.MESSAGE_STATUS_DELIVERED


async def test_read_receipts_of_many_users_at_once(world: World) -> None:
    users = [f"+49151123400{n:02d}" for n in range(8)]
    devices = [await world.device(user) for user in users]
    async with world.gateway() as gateway, reading(*devices) as readers:
        business = await world.business(gateway)
        results = await business.send(*(message(user, to=user) for user in users))
        for reader in readers:
            await reader.texts(1)
            await reader.device.send_read_receipt(reader.business, [reader.messages[0].message_id])
        for result in results:
            await business.status(result.accepted.message_id, api.MESSAGE_STATUS_READ)


class HalfFullStore(GatewayStore):
    """Has no space for what is accepted, and answers to statuses late, while `half_full`."""

    half_full = False

    async def commit(self, commits: Sequence[Commit]) -> list[Outcome]:
        if self.half_full:
            written = {op.table for commit in commits for op in commit if isinstance(op, Put)}
            if tables.IDEMPOTENCY in written:
                raise StoreFull("no space left", retry_after_ms=1)
            if tables.MESSAGES in written:
                await settle(50)
        return await super().commit(commits)


async def test_a_turn_ends_as_its_own_commit_does_beside_one_that_finds_no_space(
    world: World,
) -> None:
    users = [f"+49151123400{n:02d}" for n in range(4)]
    devices = [await world.device(user) for user in users]
    store, pool = HalfFullStore(), LocalPool(size=1)
    async with world.gateway(store, pool=pool) as gateway, reading(*devices) as readers:
        business = await world.business(gateway)
        known = await business.send(*(message(user, to=user) for user in users))
        for result in known:
            await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
        await outbox_empty(gateway)
        pool.held = asyncio.Event()
        jobs = pool.jobs
        under_way = [asyncio.create_task(business.send(message("1", to=users[1])))]
        await until(lambda: pool.jobs > jobs)
        under_way.append(asyncio.create_task(business.send(message("2", to=users[2]))))
        await until(lambda: pool.jobs > jobs + 1)
        reader = readers[0]
        await reader.device.send_text(reader.business, "told")
        await reader.device.send_read_receipt(reader.business, [reader.messages[0].message_id])
        under_way.append(asyncio.create_task(business.send(message("3", to=users[3]))))
        (lane,) = gateway.lanes._lanes
        await until(lambda: sum(map(len, lane._turns._queues.values())) >= 3)
        store.half_full = True
        pool.held.set()
        for sending in under_way:
            (result,) = await sending
            assert result.refused.reason == errors_pb2.ERROR_REASON_STORAGE_FULL
        await business.inbound(1)
        await business.status(known[0].accepted.message_id, api.MESSAGE_STATUS_READ)
        assert gateway.counters.conflicts == 0
        assert gateway.counters.duplicates == 0


async def test_a_lane_that_is_ended_before_its_commit_begins_leaves_nothing_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(point: str) -> None:
        task = asyncio.current_task()
        if point == "gateway.outbound.before_commit" and task is not None:
            task.cancel()
            ended.append(task)

    ended: list[asyncio.Task[object]] = []
    await world.device(USER)
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        monkeypatch.setattr(failpoints, "hit", end)
        sending = asyncio.create_task(business.send(message("a", to=USER)))
        await until(lambda: bool(ended) and ended[0].done())
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    gc.collect()  # a coroutine that nobody awaited is told when it goes; warnings are errors


async def test_nothing_of_a_message_is_on_disk_in_clear(world: World) -> None:
    store = GatewayStore()
    text, secret_number = "a text that nobody may find", USER
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await business.send(message("k", to=secret_number, text=text))
        await reader.texts(1)
        await reader.device.send_text(reader.business, text)
        await business.inbound(1)
        for records in store._records.values():
            for key, record in records.items():
                for secret in (text.encode(), secret_number.encode(), USER[1:].encode()):
                    assert secret not in key
                    assert secret not in record.value
