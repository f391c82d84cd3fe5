"""The pipe to a ratchet worker, in the moments around its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import psutil
import uvloop
from letterlockd.workers.link import ChildLost, Link

WORKER = (sys.executable, "-P", "-m", "letterlockd.workers.child")


def test_questions_to_a_child_that_has_just_ended_are_lost_and_no_fault() -> None:
    """Also in the moment in which the pipe is closed and the loop has not told of it. With uvloop,
    as in production: it refuses to write then."""

    async def ask() -> None:
        link = await Link.launch(WORKER, label="0", start_seconds=60, deadline_seconds=60)
        child = psutil.Process(link.pid)
        os.kill(link.pid, signal.SIGKILL)
        while child.status() != psutil.STATUS_ZOMBIE:
            pass
        answers = []
        while link.alive:
            answers.append(link.ask(b"question", lambda body: body))
            await asyncio.sleep(0)
        told = await asyncio.gather(*answers, return_exceptions=True)
        assert {type(one) for one in told} == {ChildLost}
        await link.kill()

    uvloop.run(ask())
