"""A user's device on the official libsignal client for Node, driven from a test.

The program is tests/interop/node/device.mjs, which says what its lines mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.harness.node import CURRENT_CLIENT, NODE_PEER
from tests.harness.people import verification_code
from tests.harness.supervised import Daemon

PROTO = Path(__file__).parents[2] / "proto"
ANSWER_SECONDS = 60


class NodeDevice:
    """A running device. Answers come in the order of the calls; events wait in `events`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=64)
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=10_000)

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """One operation. Raises RuntimeError with the program's words when it fails."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        await self._process.stdin.drain()
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await self._answers.get()
        if not answer.pop("ok"):
            raise RuntimeError(answer["error"])
        return answer

    async def register(self, daemon: Daemon, number: str) -> None:
        """Verify the number, make its account, and connect."""
        answer = await self.call("requestVerification", phone=number)
        verification = answer["verificationId"]
        code = verification_code(daemon, verification)
        await self.call("register", verificationId=verification, code=code, phone=number)
        await self.call("connect")

    async def message(self) -> dict[str, Any]:
        """The next message event."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                event = await self.events.get()
                if event["event"] == "message":
                    return event
                if event["event"] == "undecryptable":
                    raise RuntimeError(event["error"])

    async def read_lines(self) -> None:
        """Sorts the program's lines into answers and events, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            entry = json.loads(line)
            await (self.events if "event" in entry else self._answers).put(entry)


@asynccontextmanager
async def node_device(
    relay: str, ca: Path, *, client: str = CURRENT_CLIENT
) -> AsyncIterator[NodeDevice]:
    """Starts the program, for one user; ends it at the end of the block."""
    # By name: Node warns of a TLS server name that is an address.
    by_name = f"localhost:{relay.rpartition(':')[2]}"
    process = await asyncio.create_subprocess_exec(
        *("node", str(NODE_PEER / "device.mjs"), client, str(PROTO), by_name, str(ca)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    device = NodeDevice(process)
    reader = asyncio.create_task(device.read_lines())
    try:
        yield device
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reader
