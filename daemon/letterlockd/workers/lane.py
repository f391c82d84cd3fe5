"""One child at a time, and the jobs that are its: asked in order, asked again when it dies.

    run ──▶ pipelined: asked at once, behind at most one other job
             │ the child is lost
             ▼
            in trouble: one job at a time, in the order they came
             whole job once more ──lost──▶ its halves ──lost──▶ … ──▶ one conversation: poisoned

A lost job's answer never left the child, so asking again uses no message key twice (I2) and
nothing of it was released (I1). The job that was worked when the child went has used up one of
its two chances; one that only waited has not. Knows processes only through `Link`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from google.protobuf.message import DecodeError

from letterlockd.legs import Reading
from letterlockd.model.histogram import Histogram
from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.link import ChildLost, Link
from letterlockd.workers.outcome import WorkerLost, poisoned

__all__ = ["Lane", "Limits"]

_log = structlog.get_logger(__name__)

IN_FLIGHT = 2
"""One computing, one waiting in the pipe: with one the child idles between jobs, with more a job
only waits where it can no longer join a larger batch."""

CHANCES = 2
"""How often a job is worked whole. One loss may be an accident, a second looks like the job."""

STARTS = 3
"""How many children in a row may fail to come up before a job is told that there is no worker."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times of a lane, in seconds.

    `deadline` for one job, from when its child can work on it: a forged counter can cost a quarter
    of a second of hashing, and a job may hold a few. `start` until a child's hello. A child that
    follows a lost one waits: the first not at all, then `first_pause`, doubled each time up to
    `longest_pause`, until a job succeeds.
    """

    deadline: float = 30.0
    start: float = 30.0
    first_pause: float = 0.05
    longest_pause: float = 5.0


class Lane:
    """Place number `index` of the pool."""

    def __init__(
        self, index: int, command: Sequence[str], limits: Limits, job_times: Histogram
    ) -> None:
        self._index = index
        self._command = command
        self._limits = limits
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._link: Link | None = None
        self._losses = -1  # the very first child follows no lost one
        self._in_trouble = 0
        self._last: asyncio.Future[None] | None = None
        self._job_times = job_times
        self._waiting = 0
        self._answered = 0
        self.restarts = 0

    @property
    def reading(self) -> Reading:
        """Jobs that are here, and those that a child has answered."""
        return Reading(self._waiting, self._answered)

    @property
    def pid(self) -> int | None:
        """Process id of the child that serves now."""
        return self._link.pid if self._link is not None and self._link.alive else None

    async def start(self) -> None:
        """Have a child that is ready. Raises `WorkerLost`."""
        await self._living_link()

    async def run(self, job: jobs_pb2.Job, question: bytes) -> jobs_pb2.JobResult:
        """The result of a job (`question`: its bytes). Raises `WorkerLost` when there is no child.

        Must not be cancelled while it is held up (the pool shields it): the child would go on with
        a job that holds no slot.
        """
        self._waiting += 1
        try:
            async with self._slots:
                before, done = self._last, asyncio.get_running_loop().create_future()
                self._last = done
                try:
                    return await self._in_order(job, question, before)
                finally:
                    done.set_result(None)
        finally:
            self._waiting -= 1

    async def aclose(self) -> None:
        """End the child. Jobs must have ended before."""
        if self._link is not None:
            await self._link.aclose()

    async def kill(self) -> None:
        """End the child without regard to jobs."""
        if self._link is not None:
            await self._link.kill()

    async def _in_order(
        self, job: jobs_pb2.Job, question: bytes, before: asyncio.Future[None] | None
    ) -> jobs_pb2.JobResult:
        chances = CHANCES
        if self._link is not None and self._link.alive and not self._in_trouble:
            try:
                return await self._ask(self._link, job, question)
            except ChildLost as lost:
                chances -= lost.working
        self._in_trouble += 1
        try:
            if before is not None:
                await before  # never overtake: the earlier job may be of the same conversation
            return await self._insist(job, question, chances)
        finally:
            self._in_trouble -= 1

    async def _insist(self, job: jobs_pb2.Job, question: bytes, chances: int) -> jobs_pb2.JobResult:
        for _ in range(chances):
            link = await self._living_link()
            try:
                return await self._ask(link, job, question)
            except ChildLost:
                continue
        return await self._isolate(job)

    async def _isolate(self, job: jobs_pb2.Job) -> jobs_pb2.JobResult:
        """Work the halves apart, until what kills the child is alone."""
        tasks = job.tasks
        if not tasks:
            raise WorkerLost("making keys ended the worker")
        if len(tasks) == 1:
            _log.error("conversation_ends_worker")
            return jobs_pb2.JobResult(results=[poisoned(tasks[0])])
        middle = len(tasks) // 2
        result = jobs_pb2.JobResult()
        for half in (tasks[:middle], tasks[middle:]):
            part = jobs_pb2.Job(tasks=half)
            worked = await self._insist(part, part.SerializeToString(), 1)
            result.results.extend(worked.results)
        return result

    async def _ask(self, link: Link, job: jobs_pb2.Job, question: bytes) -> jobs_pb2.JobResult:
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await link.ask(question, lambda body: _read(job, body))
        self._losses = 0
        self._answered += 1
        if job.tasks:
            self._job_times.observe(loop.time() - began)
        return result

    async def _living_link(self) -> Link:
        for _ in range(STARTS):
            if self._link is not None and self._link.alive:
                return self._link
            try:
                await self._replace()
            except ChildLost as lost:
                _log.warning("worker_did_not_start", worker=self._index, cause=str(lost))
        raise WorkerLost("no ratchet worker could be started")

    async def _replace(self) -> None:
        if self._link is not None:
            await self._link.kill()  # it is lost already: this waits until it is gone
            self._link = None
        pause, self._losses = self._pause(), self._losses + 1
        await asyncio.sleep(pause)
        self._link = await Link.launch(
            self._command,
            label=str(self._index),
            start_seconds=self._limits.start,
            deadline_seconds=self._limits.deadline,
        )
        self.restarts += self._losses > 0

    def _pause(self) -> float:
        if self._losses <= 0:
            return 0.0
        longest = self._limits.longest_pause
        return min(self._limits.first_pause * 2.0 ** min(self._losses - 1, 32), longest)


def _read(job: jobs_pb2.Job, body: bytes) -> jobs_pb2.JobResult:
    """The result that `body` is. Raises ValueError when it does not answer `job`."""
    try:
        result = jobs_pb2.JobResult.FromString(body)
    except DecodeError:
        raise ValueError("answer is no JobResult") from None
    if len(result.results) != len(job.tasks) or result.HasField("keys") != job.HasField("keys"):
        raise ValueError("answer is to another job")
    return result
