"""What can come of a job besides its result.

    WorkerLost       no worker could be had, or the pool is closed: nothing was done, ask again
    poisoned(task)   this one conversation ended its worker each time: its steps failed, alone

Knows neither processes nor the ratchet.
"""

from __future__ import annotations

from letterlockd.errors import EnvironmentFault
from letterlockd.records.v1 import jobs_pb2

__all__ = ["WorkerLost", "poisoned"]

POISON = "WorkerLost"
"""Name in `StepFailure` of a step whose conversation ended the worker."""


class WorkerLost(EnvironmentFault):
    """The job has no result, and no part of one left a worker: it may be asked again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_ms=1_000)


def poisoned(task: jobs_pb2.ConversationTask) -> jobs_pb2.ConversationResult:
    """The result of a conversation that no worker survives: every step failed."""
    failure = jobs_pb2.StepFailure(name=POISON)
    return jobs_pb2.ConversationResult(
        steps=[jobs_pb2.StepResult(failure=failure) for _ in task.steps]
    )
