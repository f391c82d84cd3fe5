"""`letterlock inbox`: which dead letters are meant, and the question before all of them go."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from letterlock.v1 import receiving_pb2, receiving_pb2_grpc

from tests.harness.fakes_sdk import NUMBER, TOKEN
from tests.harness.served import served
from tests.unit.sdk.test_cli import letterlock

DROP = ("--token", TOKEN, "inbox", "drop-dead-letters", "--number", NUMBER)


class FakeReceiving(receiving_pb2_grpc.ReceivingServicer):
    """Dead letters of one number. One more dies behind each list that is asked for."""

    def __init__(self) -> None:
        self.dead = ["e0", "e1"]
        self._later = count(2)

    async def ListDeadLetters(self, request, context):  # type: ignore[no-untyped-def, override]
        letters = [receiving_pb2.DeadLetter(event_id=event_id) for event_id in self.dead]
        if self.dead:
            self.dead.append(f"e{next(self._later)}")
        return receiving_pb2.ListDeadLettersResponse(dead_letters=letters)

    async def DropDeadLetters(self, request, context):  # type: ignore[no-untyped-def, override]
        before = len(self.dead)
        self.dead = [event_id for event_id in self.dead if event_id not in request.event_ids]
        return receiving_pb2.DropDeadLettersResponse(dropped=before - len(self.dead))


@pytest.fixture
def receiving() -> FakeReceiving:
    return FakeReceiving()


@pytest.fixture
async def gateway(receiving: FakeReceiving) -> AsyncIterator[str]:
    add = partial(receiving_pb2_grpc.add_ReceivingServicer_to_server, receiving)
    async with served(add) as target:
        yield target


async def at_a_terminal(folder: Path, target: str, answer: str) -> tuple[int, str, str]:
    """Drop all at a terminal at which the answer was typed already."""
    keyboard, stdin = os.openpty()
    os.write(keyboard, f"{answer}\n".encode())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from letterlock.cli.commands import main; main()"),
        *("--insecure", "--gateway", target, *DROP, "--all"),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_CONFIG_HOME": str(folder)},
    )
    out, err = await process.communicate()
    os.close(keyboard)
    os.close(stdin)
    return process.returncode or 0, out.decode(), err.decode()


async def test_all_dead_letters_go_only_when_it_is_meant(
    tmp_path: Path, gateway: str, receiving: FakeReceiving
) -> None:
    asked = f"This destroys 2 dead letters of {NUMBER} with their content. Go on? [y/N]: "
    code, out, err = await at_a_terminal(tmp_path, gateway, "n")
    assert (code, out, err) == (1, "", f"{asked}Aborted!\n")
    assert receiving.dead == ["e0", "e1", "e2"]
    code, out, err = await at_a_terminal(tmp_path, gateway, "y")
    assert (code, json.loads(out), err) == (0, {"dropped": 3}, asked.replace("2", "3", 1))
    assert receiving.dead == ["e3"]  # it died after the question


async def test_named_ones_and_yes_do_not_ask(
    tmp_path: Path, gateway: str, receiving: FakeReceiving
) -> None:
    code, lines, err = await letterlock(tmp_path, gateway, *DROP, "e0")
    assert (code, [json.loads(line) for line in lines], err) == (0, [{"dropped": 1}], "")
    code, lines, err = await letterlock(tmp_path, gateway, *DROP, "--all", "--yes")
    assert (code, [json.loads(line) for line in lines], err) == (0, [{"dropped": 1}], "")
    receiving.dead.clear()
    code, out, err = await at_a_terminal(tmp_path, gateway, "y")
    assert (code, out) == (4, "")
    assert err == "letterlock: NOT_FOUND: the number has no dead letters\n"


@pytest.mark.parametrize("command", ["drop-dead-letters", "replay-dead-letters"])
async def test_which_ones_has_to_be_said(tmp_path: Path, command: str) -> None:
    asking = ("--token", TOKEN, "inbox", command, "--number", NUMBER)
    for which in ((), ("--all", "e0")):
        code, lines, err = await letterlock(tmp_path, "127.0.0.1:1", *asking, *which)
        told = "which ones? (EVENT_ID: one or more, or --all)"
        assert (code, lines, err) == (2, [], f"letterlock: INVALID_FIELD: {told}\n")
