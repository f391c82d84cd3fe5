"""A daemon, its business and its users, on one machine, sessions established: what end-to-end
workloads run on.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from letterlockd import collector

from bench.business import Business
from bench.ledger import Balance, LedgerError
from bench.processes import DaemonProcesses, Usage
from tests.harness.people import open_shop
from tests.harness.supervised import Daemon, daemon

TEXT_BYTES = 256
WINDOW = 4_096
"""The contract's bound of messages without an answer."""
PATIENCE_S = 120.0
FIRST_USER = 15550200000
FIRST_SHOP = 15550100100
END_S = 30.0


class FleetProcess:
    """The users' process as this one sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.usage = psutil.Process(process.pid)

    async def __call__(self, do: str, **arguments: object) -> dict[str, Any]:
        """Give a command, wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        answer = await self._process.stdout.readline()
        if not answer:
            raise LedgerError(f"the users' process ended in {do!r}")
        return dict(json.loads(answer))


class Stage:
    """Everything that runs."""

    def __init__(self, running: Daemon, fleet: FleetProcess, users: int) -> None:
        self.processes = DaemonProcesses(running.process.pid)
        self.fleet = fleet
        self.users = users
        self._running = running
        self._shops = 0
        self._own_usage = psutil.Process()

    @asynccontextmanager
    async def new_business(self) -> AsyncIterator[Business]:
        """A business that has never written to anyone, with its streams open."""
        shop = await open_shop(self._running, f"+{FIRST_SHOP + self._shops}")
        self._shops += 1
        numbers = [f"+{FIRST_USER + user}" for user in range(self.users)]
        async with shop.client() as client:
            business = Business(client, numbers, "x" * TEXT_BYTES)
            reading = asyncio.create_task(business.read())
            try:
                yield business
            finally:
                reading.cancel()
                await asyncio.wait([reading])

    async def register(self) -> None:
        """All users, one connected device each."""
        await self.fleet("register", users=self.users, devices_each=1, first_number=FIRST_USER)

    async def establish(self, business: Business) -> None:
        """A first contact with every user, and an answer from each."""
        await self.fleet("begin", expected=self.users)
        business.events.begin()
        await business.send(self.users, WINDOW)
        await self.arrived(business, self.users)
        await self.fleet("answer", each=1)

    async def arrived(self, business: Business, count: int) -> dict[str, Any]:
        """Wait for `count` messages on the devices and for their reports; what the users' process
        says. Raises `LedgerError` unless each came once and was told as delivered once."""
        came = await self.fleet("finish", patience_s=PATIENCE_S)
        Balance(*came["balance"]).check(count)
        await business.until_delivered(count, PATIENCE_S)
        return came

    async def idle_cores(self, seconds: int) -> float:
        """How many cores the daemon keeps busy while nothing happens."""
        before, began = sum(self.processes.cpu_s().values()), time.monotonic()
        await asyncio.sleep(seconds)
        return (sum(self.processes.cpu_s().values()) - before) / (time.monotonic() - began)

    def cpu_s(self) -> Usage:
        """CPU seconds so far by role, load generators included."""
        used = self.processes.cpu_s()
        for role, process in (
            ("load: users", self.fleet.usage),
            ("load: business", self._own_usage),
        ):
            times = process.cpu_times()
            used[role] = times.user + times.system
        return used


@asynccontextmanager
async def stage(where: Path | None, users: int) -> AsyncIterator[Stage]:
    """Start everything with its data in a fresh folder below `where` (None: the temporary one);
    nobody is registered yet."""
    collector.calm()
    with tempfile.TemporaryDirectory(dir=where) as folder:
        async with daemon(Path(folder)) as running, _fleet(running) as fleet:
            yield Stage(running, fleet, users)


@asynccontextmanager
async def _fleet(running: Daemon) -> AsyncIterator[FleetProcess]:
    codes = running.data / "verification"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.fleet", running.addresses["relay"], running.ca, codes),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
    )
    try:
        yield FleetProcess(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
