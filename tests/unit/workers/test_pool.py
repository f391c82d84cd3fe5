"""What the pool promises, with real processes, on both event loops."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest
import structlog
from letterlockd.errors import InvalidField
from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers import lane, pool
from letterlockd.workers.pool import Limits, WorkerLost, WorkerPool

from tests.harness.conversations import Number, Talk, User, envelopes, text_payload
from tests.harness.pools import QUICK, Meeting, Stubs, job, names


async def test_real_workers_work_real_jobs() -> None:
    async with WorkerPool(2) as workers:
        loop = asyncio.get_running_loop()

        def run(asked: jobs_pb2.Job) -> jobs_pb2.JobResult:
            work = workers.run(workers.lane_of(asked.tasks[0].conversation), asked)
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        made = Talk(Number.create(), User.create(), run=run)
        (result,) = await asyncio.to_thread(made.work, made.user.establish())
        assert result.HasField("established")
        payload = text_payload()
        (envelope,) = await asyncio.to_thread(made.send, payload)
        assert made.receive(envelope) == payload


async def test_a_worker_has_one_thread() -> None:
    async with WorkerPool(1) as workers:
        (pid,) = workers.pids
        assert psutil.Process(pid).num_threads() == 1


async def test_keys_are_made_by_workers() -> None:
    task = jobs_pb2.KeyTask(scope_key=bytes(32), account_id=bytes(16), one_time_key_ids=[7])
    async with WorkerPool(1) as workers:
        result = await workers.run(0, jobs_pb2.Job(keys=task))
    assert [key.key_id for key in result.keys.pre_keys] == [7]


def test_a_conversation_has_the_same_lane_in_every_process() -> None:
    # Values written down: a change of the hash would need no migration, but must be meant.
    workers = WorkerPool(4)
    assert [workers.lane_of(bytes([n]) * 32) for n in range(8)] == [1, 0, 3, 2, 0, 1, 2, 3]
    assert {workers.lane_of(os.urandom(32)) for _ in range(200)} == {0, 1, 2, 3}


async def test_a_lane_answers_in_order_and_lanes_are_independent(
    stubs: Stubs, tmp_path: Path
) -> None:
    meeting = Meeting(tmp_path)
    finished: list[str] = []

    async def work(workers: WorkerPool, number: int, name: str) -> None:
        await workers.run(number, job(name))
        finished.append(name)

    async with stubs.pool(2) as workers, asyncio.TaskGroup() as running:
        for name in [meeting.name, "a", "b", "c"]:
            running.create_task(work(workers, 0, name))
        await meeting.reached()  # lane 0 holds its first job now
        await work(workers, 1, "other lane")
        assert finished == ["other lane"]
        pid = workers.pids[0]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    assert finished == ["other lane", meeting.name, "a", "b", "c"]


async def test_no_more_than_two_jobs_are_with_a_child(stubs: Stubs, tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    async with stubs.pool() as workers, asyncio.TaskGroup() as running:
        for name in [meeting.name, "a", "b", "c"]:
            running.create_task(workers.run(0, job(name)))
        await meeting.reached()
        link = workers._lanes[0]._link
        assert link is not None
        assert len(link._questions) == lane.IN_FLIGHT
        await link.kill()
    assert stubs.begun[-3:] == ["a", "b", "c"]


@pytest.mark.parametrize("faulty", [False, True])
async def test_a_pool_that_stops_tells_of_no_loss(faulty: bool) -> None:
    with structlog.testing.capture_logs() as logs, contextlib.suppress(ZeroDivisionError):
        async with WorkerPool(1) as workers:
            await workers.run(0, jobs_pb2.Job())
            if faulty:
                raise ZeroDivisionError
    assert not logs


async def test_a_child_that_ends_by_itself_is_a_loss_that_is_told() -> None:
    with structlog.testing.capture_logs() as logs:
        async with WorkerPool(1) as workers:
            (pid,) = workers.pids
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await workers.run(0, jobs_pb2.Job())
    (entry,) = logs
    told = {"event": "worker_lost", "worker": "0", "cause": "ended by itself"}
    assert entry == {**told, "log_level": "warning"}


async def test_children_ignore_signals_to_the_group() -> None:
    async with WorkerPool(1) as workers:
        (pid,) = workers.pids
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
        await workers.run(0, jobs_pb2.Job())
        assert workers.pids == (pid,)


async def test_closing_finishes_the_jobs_and_ends_the_children(stubs: Stubs) -> None:
    async with stubs.pool() as workers:
        (pid,) = workers.pids
        work = [asyncio.create_task(workers.run(0, job(str(n)))) for n in range(5)]
        await asyncio.gather(work[0])  # the others are queued
    assert [names((await task).results) for task in work] == [[str(n)] for n in range(5)]
    assert pid is not None
    assert not psutil.pid_exists(pid)
    with pytest.raises(WorkerLost):
        await workers.run(0, job("late"))


class Stop(Exception):
    """Ends a pool's block."""


async def test_an_error_in_the_block_drops_the_jobs_and_comes_through(
    stubs: Stubs, tmp_path: Path
) -> None:
    meeting = Meeting(tmp_path)
    workers = stubs.pool()

    async def stop_in_mid_job() -> None:
        async with workers:
            begun.append(asyncio.create_task(workers.run(0, job(meeting.name))))
            await meeting.reached()
            raise Stop

    begun: list[asyncio.Task[jobs_pb2.JobResult]] = []
    with pytest.raises(Stop):
        await stop_in_mid_job()
    with pytest.raises(WorkerLost):
        await begun[0]
    assert not psutil.Process().children()


async def test_a_cancelled_caller_leaves_the_lane_in_order(stubs: Stubs, tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    async with stubs.pool() as workers:
        dropped = asyncio.create_task(workers.run(0, job(meeting.name)))
        await meeting.reached()
        dropped.cancel()
        (pid,) = workers.pids
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert names((await workers.run(0, job("next"))).results) == ["next"]
    assert stubs.begun == [meeting.name, meeting.name, "next"]


@pytest.mark.parametrize("mode", ["dies", "wrong-hello", "mute"])
async def test_a_child_that_does_not_come_up_is_told_at_the_start(stubs: Stubs, mode: str) -> None:
    short = Limits(start=0.2 if mode == "mute" else 60.0, first_pause=0.001)
    before = set(psutil.Process().children())
    with pytest.raises(WorkerLost):
        async with stubs.pool(2, mode=mode, limits=short):
            pytest.fail("it is not open")
    assert set(psutil.Process().children()) <= before


async def test_a_command_that_cannot_be_run_is_told_at_the_start() -> None:
    with pytest.raises(WorkerLost):
        async with WorkerPool(1, command=("/nonexistent/worker",), limits=QUICK):
            pytest.fail("it is not open")


async def test_an_oversized_job_is_refused_and_the_lane_goes_on(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_JOB_BYTES", 1_000)
    async with stubs.pool() as workers:
        with pytest.raises(InvalidField, match="job: at most 1000 bytes"):
            await workers.run(0, job("x" * 1_000))
        assert names((await workers.run(0, job("small"))).results) == ["small"]


async def test_a_pool_has_at_least_one_lane() -> None:
    with pytest.raises(InvalidField):
        WorkerPool(0)


async def test_large_jobs_pass_the_pipes_whole() -> None:
    made = Talk(Number.create(), User.create())
    made.work(made.user.establish())
    payload = text_payload("x" * 16_384)
    step = jobs_pb2.Step(encrypt=jobs_pb2.Encrypt(payload=payload))
    asked = jobs_pb2.Job(tasks=[made.task(*[step] * 256)])
    async with WorkerPool(1) as workers:
        (result,) = (await workers.run(0, asked)).results
    received = [made.receive(envelopes(done)[0]) for done in result.steps]
    assert received == [payload] * 256


async def test_a_bug_is_logged_by_place_without_values() -> None:
    made = Talk(Number.create(), User.create())
    with structlog.testing.capture_logs() as logs:
        async with WorkerPool(1) as workers:
            asked = jobs_pb2.Job(tasks=[made.task(jobs_pb2.Step())])
            (result,) = (await workers.run(0, asked)).results
    assert result.steps[0].failure.name == "InternalError"
    (entry,) = logs
    assert entry["event"] == "worker_said"
    assert "builtins.ValueError at execute.py:" in entry["line"]
    assert "step of no kind" not in str(entry)


async def test_an_empty_job_proves_a_lane_and_is_not_timed() -> None:
    async with WorkerPool(1) as workers:
        before = workers.reading(0)
        await workers.prove(0)
        after = workers.reading(0)
        assert (before.waiting, after.waiting) == (0, 0)
        assert after.passed == before.passed + 1
        assert workers.job_times.read()[1] == 0
