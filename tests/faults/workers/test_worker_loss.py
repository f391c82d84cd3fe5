"""A worker dies, hangs or answers noise: nothing is lost, nothing is released twice, the poison
stays alone.
"""

import asyncio
import os
import signal
from pathlib import Path

import pytest
import tripleratchet as tr
from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.pool import Limits, WorkerLost, WorkerPool

from tests.harness.conversations import Number, Talk, User, encrypt_step, envelopes, text_payload
from tests.harness.pools import QUICK, Meeting, Stubs, job, names

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("poison", ["kill", "exit", "noise", "endless", "short", "late"])
async def test_one_poison_conversation_takes_no_other_with_it(stubs: Stubs, poison: str) -> None:
    limits = QUICK if poison != "endless" else Limits(deadline=1.0, first_pause=0.001)
    async with stubs.pool(limits=limits) as workers:
        result = await workers.run(0, job("a", "b", "c", poison, "d", steps=3))
        assert names(result.results) == ["a", "b", "c", "-", "d"]
        assert [len(one.steps) for one in result.results] == [0, 0, 0, 3, 0]
        assert names((await workers.run(0, job("after"))).results) == ["after"]


async def test_a_hanging_worker_is_killed_at_the_deadline(stubs: Stubs) -> None:
    async with stubs.pool(limits=Limits(deadline=1.0, first_pause=0.001)) as workers:
        result = await workers.run(0, job("a", "hang"))
        assert names(result.results) == ["a", "-"]


async def test_several_poison_conversations_are_found(stubs: Stubs) -> None:
    async with stubs.pool() as workers:
        asked = [f"c{n}" for n in range(12)]
        asked[2] = asked[3] = asked[9] = "kill"
        result = await workers.run(0, job(*asked))
        assert names(result.results) == [name if name != "kill" else "-" for name in asked]


async def test_an_accident_costs_a_repeat_and_no_result(stubs: Stubs, tmp_path: Path) -> None:
    name = f"once:{tmp_path / 'died'}"
    async with stubs.pool() as workers:
        result = await workers.run(0, job("a", name, "b"))
        assert names(result.results) == ["a", name, "b"]
        assert workers.restarts == 1
    assert stubs.begun == ["a", name, "a", name, "b"]


async def test_a_job_that_only_waited_keeps_both_its_chances(stubs: Stubs, tmp_path: Path) -> None:
    first, second = f"once:{tmp_path / 'first'}", f"once:{tmp_path / 'second'}"
    async with stubs.pool() as workers, asyncio.TaskGroup() as running:
        tasks = [running.create_task(workers.run(0, job(name))) for name in (first, second, "z")]
    assert [names(task.result().results) for task in tasks] == [[first], [second], ["z"]]


async def test_order_is_kept_through_losses(stubs: Stubs, tmp_path: Path) -> None:
    finished: list[str] = []

    async def work(workers: WorkerPool, *asked: str) -> None:
        await workers.run(0, job(*asked))
        finished.append(asked[0])

    async with stubs.pool() as workers, asyncio.TaskGroup() as running:
        for n in range(20):
            trouble = {4: "kill", 5: f"once:{tmp_path / 'a'}", 11: f"once:{tmp_path / 'b'}"}
            running.create_task(work(workers, str(n), trouble.get(n, "x"), "y"))
    assert finished == [str(n) for n in range(20)]
    last_begun = {name: place for place, name in enumerate(stubs.begun) if name.isdecimal()}
    assert sorted(last_begun, key=last_begun.__getitem__) == [str(n) for n in range(20)]


async def test_making_keys_has_no_halves(stubs: Stubs) -> None:
    async with stubs.pool() as workers:
        with pytest.raises(WorkerLost):  # the stub answers no keys
            await workers.run(0, jobs_pb2.Job(keys=jobs_pb2.KeyTask()))
        assert names((await workers.run(0, job("after"))).results) == ["after"]


async def test_without_any_worker_a_job_is_told_and_a_later_one_tries_again(
    stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stubs.pool() as workers:
        lane = workers._lanes[0]
        working = lane._command
        monkeypatch.setattr(lane, "_command", ("/nonexistent/worker",))
        with pytest.raises(WorkerLost):
            await workers.run(0, job("kill"))
        monkeypatch.setattr(lane, "_command", working)
        assert names((await workers.run(0, job("later"))).results) == ["later"]


async def test_pauses_between_restarts_grow_and_end(stubs: Stubs) -> None:
    async with stubs.pool(limits=Limits(first_pause=0.5, longest_pause=3.0)) as workers:
        lane = workers._lanes[0]
        pauses = []
        for losses in range(6):
            lane._losses = losses
            pauses.append(lane._pause())
        assert pauses == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]
        await workers.run(0, job("a"))
        assert lane._pause() == 0.0


@pytest.mark.parametrize("place", ["received", "answering"])
async def test_a_real_worker_dies_in_a_job_and_no_key_is_used_twice(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every child dies at its second job, before or after the ratchet's work.
    monkeypatch.setenv("LETTERLOCK_FAILPOINTS", f"workers.job.{place}=kill@2")
    made = Talk(Number.create(), User.create())
    made.work(made.user.establish())
    bodies: list[bytes] = []
    async with WorkerPool(1, limits=QUICK) as workers:
        for n in range(6):
            asked = jobs_pb2.Job(tasks=[made.task(encrypt_step(text_payload(str(n))))])
            (result,) = (await workers.run(0, asked)).results
            made.commit(result)
            (envelope,) = envelopes(result.steps[0])
            made.receive(envelope)
            bodies.append(envelope.body)
        assert workers.restarts == 5
    assert len({counter_of(body) for body in bodies}) == 6


def counter_of(body: bytes) -> int:
    """The ratchet counter of a first message: the number of its message key."""
    return tr.messages.PreKeySignalMessage.parse(body).message.counter


async def test_a_worker_killed_from_outside_in_mid_job(stubs: Stubs, tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    async with stubs.pool() as workers:
        task = asyncio.create_task(workers.run(0, job("a", meeting.name, "b")))
        await meeting.reached()
        (pid,) = workers.pids
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert names((await task).results) == ["a", meeting.name, "b"]
