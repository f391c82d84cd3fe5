"""What the CLI tells of an outage: one line when it begins, one when it is over."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.harness.fakes_sdk import NUMBER, TOKEN, FakeGateway, serving


@pytest.mark.parametrize("command", ["receive", "watch"])
async def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    tmp_path: Path, command: str
) -> None:
    gateway = FakeGateway()
    async with serving(gateway) as target:
        port = int(target.rpartition(":")[2])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from letterlock.cli.commands import main; main()"),
        *("--insecure", "--gateway", target, "--token", TOKEN, command, "--number", NUMBER),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        first = await process.stderr.readline()
        told = f"letterlock: UNAVAILABLE: nothing answers at {target}; is letterlockd running?"
        assert first.decode() == f"{told} (--gateway); trying again\n"
        async with serving(gateway, port):
            assert await process.stderr.readline() == b"letterlock: connected again\n"
            gateway.write("hello")
            shown = json.loads(await process.stdout.readline())
            assert shown["content"]["text"]["body"] == "hello"
        lost = (await process.stderr.readline()).decode()
        assert lost.startswith("letterlock: UNAVAILABLE: ")
        assert lost.endswith("; trying again\n")
    finally:
        process.kill()
        left, err = await process.communicate()
    assert (left, err) == (b"", b"")
