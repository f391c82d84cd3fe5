"""Asks a worker, and asks again with the pre-keys that it needs, until every step has a result.

    job ──▶ results ──▶ a step needs pre-keys ──read──▶ the rest of that task, from the state so far

Knows the shape of jobs, not what the steps are for. Nothing here is committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from letterlockd.gateway.tables import PRE_KEYS, pre_key_key
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.store.port import Store

__all__ = ["Pool", "Question", "ask"]

_EITHER_KYBER = (jobs.PRE_KEY_KIND_KYBER_ONE_TIME, jobs.PRE_KEY_KIND_KYBER_LAST_RESORT)


class Pool(Protocol):
    """The ratchet workers, as far as they are asked here."""

    @property
    def size(self) -> int:
        """How many lanes there are."""
        ...

    def lane_of(self, conversation: bytes) -> int:
        """The lane of a conversation: always the same."""
        ...

    async def run(self, lane: int, job: jobs.Job) -> jobs.JobResult:
        """Work a job. Raises `WorkerLost`."""
        ...


@dataclass(slots=True)
class Question:
    """A task, and after `ask` one result for each of its steps and the new sealed record (empty:
    unchanged)."""

    task: jobs.ConversationTask
    key_scope: bytes
    results: list[jobs.StepResult] = field(default_factory=list)
    sealed_record: bytes = b""
    settled: int = 0


async def ask(
    pool: Pool, store: Store, lane: int, job: jobs.Job, questions: Sequence[Question]
) -> None:
    """Work `job`, whose tasks are those of `questions`. Ends, because each round settles at least
    one more step of each task that is left. Raises `WorkerLost`."""
    while True:
        answer = await pool.run(lane, job)
        unsettled = [
            question
            for question, result in zip(questions, answer.results, strict=True)
            if _take(question, result)
        ]
        if not unsettled:
            return
        for question in unsettled:
            await _supply(store, question)
        job = jobs.Job(tasks=[question.task for question in unsettled])
        questions = unsettled


def _take(question: Question, result: jobs.ConversationResult) -> bool:
    """Keep what is settled; True when a step asked for pre-keys and the rest was not tried."""
    question.settled = len(result.steps) - 1
    question.results += result.steps
    question.sealed_record = result.sealed_record or question.sealed_record
    return question.results[-1].HasField("pre_keys_needed")


async def _supply(store: Store, question: Question) -> None:
    """Cut the task down to what is left and give its first step the pre-keys."""
    needed = question.results.pop().pre_keys_needed.keys
    task = question.task
    task.sealed_record = question.sealed_record or task.sealed_record
    del task.steps[: question.settled]
    places = [(kind, key.key_id) for key in needed for kind in _kinds(key.kind)]
    keys = [pre_key_key(question.key_scope, *place) for place in places]
    found = {}
    for place, row in zip(places, await store.get_many(PRE_KEYS, keys), strict=True):
        if row is not None:
            found[place] = row.value
    for key in needed:
        kind = next((k for k in _kinds(key.kind) if (k, key.key_id) in found), key.kind)
        task.steps[0].decrypt.pre_keys.add(
            kind=kind, key_id=key.key_id, sealed=found.get((kind, key.key_id), b"")
        )


def _kinds(asked: jobs.PreKeyKind.ValueType) -> tuple[jobs.PreKeyKind.ValueType, ...]:
    return _EITHER_KYBER if asked == jobs.PRE_KEY_KIND_KYBER_ONE_TIME else (asked,)
