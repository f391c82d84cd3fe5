"""Builds the TypeScript client, once, and runs its test drivers in processes of their own.

The drivers are clients/typescript/test/drivers/*.ts, which say what their lines mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.harness.people import Shop, verification_code
from tests.harness.supervised import Daemon

CLIENT = Path(__file__).parents[2] / "clients" / "typescript"
DRIVERS = CLIENT / "dist" / "test" / "drivers"
ANSWER_SECONDS = 60
_INSTALL_SECONDS = 110


def build_typescript_client() -> str | None:
    """What is missing for the TypeScript client to run, or None when it is installed and built.

    Raises RuntimeError when it does not compile.
    """
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "node and npm are needed for the TypeScript client"
    installed = CLIENT / "node_modules" / ".package-lock.json"
    lock = CLIENT / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        failed = _run(npm, "ci", "--no-audit", "--no-fund")
        if failed is not None:
            return failed
    failed = _run(npm, "run", "--silent", "build")
    if failed is not None:
        raise RuntimeError(failed)
    return None


def _run(*command: str) -> str | None:
    done = subprocess.run(
        command,
        cwd=CLIENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        return f"{' '.join(command[1:])} failed in clients/typescript: {done.stdout[-400:]}"
    return None


class DriverError(Exception):
    """An operation failed: the error as the client told it."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('name')}: {error.get('detail')}")
        self.name: str = error.get("name", "")
        self.reason: str = error.get("reason", "")
        self.field: str = error.get("field", "")
        self.limit: str = error.get("limit", "")


class Driver:
    """A running driver. Answers come in the order of the calls; events wait in `events`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=64)
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=10_000)

    async def call(self, op: str, **fields: str) -> dict[str, Any]:
        """One operation. Raises DriverError with the client's own words when it fails."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        await self.process.stdin.drain()
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await self._answers.get()
        if not answer.pop("ok"):
            raise DriverError(answer["error"])
        return answer

    async def event(self, kind: str, until: Callable[[dict[str, Any]], bool] | None = None) -> Any:
        """The next event of a kind that `until` accepts; an event of a loss is raised."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                event = await self.events.get()
                if event["event"] == kind and (until is None or until(event)):
                    return event
                if event["event"] in {"undecryptable", "ended"}:
                    raise AssertionError(event)

    async def message(self) -> dict[str, Any]:
        """The next message event."""
        return dict(await self.event("message"))

    async def register(self, daemon: Daemon, number: str) -> dict[str, Any]:
        """For a device: verify the number, make its account, and connect."""
        answer = await self.call("requestVerification", phone=number)
        verification = answer["verificationId"]
        code = verification_code(daemon, verification)
        made = await self.call("register", verificationId=verification, code=code, phone=number)
        await self.call("connect")
        return made

    async def read_lines(self) -> None:
        """Sorts the program's lines into answers and events, until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            entry = json.loads(line)
            await (self.events if "event" in entry else self._answers).put(entry)


@asynccontextmanager
async def typescript_device(daemon: Daemon, state: Path | None = None) -> AsyncIterator[Driver]:
    """A user's device; its state is in `state`, or in memory."""
    arguments = [by_name(daemon.addresses["relay"]), str(daemon.ca)]
    async with _driver("device", *arguments, *([str(state)] if state else [])) as driver:
        yield driver


@asynccontextmanager
async def typescript_business(
    shop: Shop, *, token: str | None = None, number: str | None = None
) -> AsyncIterator[Driver]:
    """The backend of a business."""
    gateway, ca = by_name(shop.daemon.addresses["gateway"]), str(shop.daemon.ca)
    async with _driver(
        "business", gateway, ca, token or shop.token, number or shop.number
    ) as driver:
        yield driver


def by_name(address: str) -> str:
    """The address by name: Node warns of a TLS server name that is an address."""
    return f"localhost:{address.rpartition(':')[2]}"


@asynccontextmanager
async def _driver(name: str, *arguments: str) -> AsyncIterator[Driver]:
    process = await asyncio.create_subprocess_exec(
        *("node", str(DRIVERS / f"{name}.js"), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    driver = Driver(process)
    reader = asyncio.create_task(driver.read_lines())
    try:
        yield driver
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reader
