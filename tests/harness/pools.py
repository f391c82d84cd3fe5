"""Pools of stub workers, whose children behave as the test says (see stub_worker)."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.pool import Limits, WorkerPool

QUICK = Limits(deadline=60.0, start=60.0, first_pause=0.001, longest_pause=0.01)
"""Restarts without waiting; deadlines that no busy machine reaches."""


class Stubs:
    """Makes pools of stub children in a test's folder."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "begun"

    def pool(self, size: int = 1, *, mode: str = "serve", limits: Limits = QUICK) -> WorkerPool:
        command = (sys.executable, "-m", "tests.harness.stub_worker", mode, str(self._log))
        return WorkerPool(size, command=command, limits=limits)

    @property
    def begun(self) -> list[str]:
        """Conversations in the order they were begun, by all children."""
        return self._log.read_text().splitlines() if self._log.exists() else []


class Meeting:
    """A conversation that hangs its worker the first time, and tells when it does."""

    def __init__(self, folder: Path) -> None:
        self.name = f"meet:{folder / 'met'}"
        self._fifo = folder / "met.fifo"
        os.mkfifo(self._fifo)

    async def reached(self) -> None:
        """Wait until a worker hangs in it."""
        (await asyncio.to_thread(self._fifo.open, "rb")).close()


def job(*conversations: str, steps: int = 1) -> jobs_pb2.Job:
    """A job of these conversations."""
    made = jobs_pb2.Job()
    for conversation in conversations:
        task = made.tasks.add(conversation=conversation.encode())
        for _ in range(steps):
            task.steps.add()
    return made


def names(results: Iterable[jobs_pb2.ConversationResult]) -> list[str]:
    """The conversations that answered, "-" for one that is poisoned."""
    return [
        "-"
        if {step.failure.name for step in result.steps} == {"WorkerLost"}
        else result.sealed_record.decode()
        for result in results
    ]
