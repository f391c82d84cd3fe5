"""The pool of ratchet workers: N lanes, each with a child process of its own.

    async with WorkerPool(2) as pool:
        result = await pool.run(pool.lane_of(conversation), job)

A conversation always goes to the same lane, and a lane answers in order, so a conversation is
worked in order by one process at a time. Knows nothing of what a job does, of the store or of gRPC.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from letterlockd.errors import InvalidField
from letterlockd.legs import Reading
from letterlockd.model.histogram import Histogram
from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.lane import Lane, Limits
from letterlockd.workers.outcome import WorkerLost

__all__ = ["MAX_JOB_BYTES", "Limits", "WorkerLost", "WorkerPool"]

CHILD = (sys.executable, "-P", "-m", "letterlockd.workers.child")

MAX_JOB_BYTES = 32 * 1024 * 1024
"""Two such jobs in each lane bound the memory of the pipes. A full batch of the largest messages
is a tenth of it."""


class WorkerPool:
    """Child processes that work jobs. Use as an async context manager, in one task.

    `command` starts a child that speaks `frames`; only tests give another one.
    """

    def __init__(
        self, size: int, *, command: Sequence[str] = CHILD, limits: Limits | None = None
    ) -> None:
        if size < 1:
            raise InvalidField("workers", "must be at least 1")
        self.job_times = Histogram()
        """How long children took for jobs with conversations, the wait in the pipe included."""
        self._lanes = tuple(
            Lane(index, command, limits or Limits(), self.job_times) for index in range(size)
        )
        self._running = asyncio.TaskGroup()
        self._jobs: set[asyncio.Task[jobs_pb2.JobResult | WorkerLost]] = set()
        self._open = False

    @property
    def size(self) -> int:
        """How many lanes there are."""
        return len(self._lanes)

    @property
    def restarts(self) -> int:
        """How many lost children were replaced so far."""
        return sum(lane.restarts for lane in self._lanes)

    @property
    def pids(self) -> tuple[int | None, ...]:
        """Process ids of the children by lane; None where one is being replaced."""
        return tuple(lane.pid for lane in self._lanes)

    def reading(self, lane: int) -> Reading:
        """Whether jobs come out of a lane."""
        return self._lanes[lane].reading

    async def prove(self, lane: int) -> None:
        """Have a lane answer a job with nothing in it. Raises `WorkerLost`."""
        await self.run(lane, jobs_pb2.Job())

    def lane_of(self, conversation: bytes) -> int:
        """The lane of a conversation: the same in every process and run."""
        return zlib.crc32(conversation) % len(self._lanes)

    async def run(self, lane: int, job: jobs_pb2.Job) -> jobs_pb2.JobResult:
        """The result of `job`, worked in lane `lane` after the jobs that came before.

        Waits while two jobs are in the lane. The job must not be changed before the answer. A
        conversation that ends its worker every time has failed steps named "WorkerLost". Raises
        `WorkerLost` when there is no worker (or, with `job.keys`, none that survives). Cancelling
        does not recall the job: its answer is dropped, which is harmless before a commit.
        """
        if not self._open:
            raise WorkerLost("the worker pool is closed")
        question = job.SerializeToString()
        if len(question) > MAX_JOB_BYTES:
            raise InvalidField("job", f"at most {MAX_JOB_BYTES} bytes")
        task = self._running.create_task(self._outcome(lane, job, question))
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        outcome = await asyncio.shield(task)
        if isinstance(outcome, WorkerLost):
            raise outcome
        return outcome

    async def __aenter__(self) -> Self:
        await self._running.__aenter__()
        starts = (lane.start() for lane in self._lanes)
        started = await asyncio.gather(*starts, return_exceptions=True)
        for failure in started:
            if failure is not None:
                await self._stop(at_once=True)
                raise failure
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the jobs in the lanes, then end the children; after an error drop the jobs."""
        await self._stop(at_once=error is not None)

    async def _stop(self, *, at_once: bool) -> None:
        self._open = False
        if at_once:
            for task in self._jobs:
                task.cancel()
        try:
            await self._running.__aexit__(None, None, None)
        finally:
            ends = (lane.kill() if at_once else lane.aclose() for lane in self._lanes)
            await asyncio.gather(*ends)

    async def _outcome(
        self, lane: int, job: jobs_pb2.Job, question: bytes
    ) -> jobs_pb2.JobResult | WorkerLost:
        # A value, never an exception: one lost job must not end the group of all jobs.
        try:
            return await self._lanes[lane].run(job, question)
        except WorkerLost as lost:
            return lost
        except asyncio.CancelledError:  # only `_stop` cancels: the caller is to learn it as a loss
            return WorkerLost("the worker pool was stopped")
