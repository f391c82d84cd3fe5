"""A daemon, its business and its users, on one machine, sessions established: what end-to-end
workloads run on.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from letterlockd import collector

from bench.business import Business, LedgerError
from bench.processes import DaemonProcesses, Usage
from tests.harness.people import Shop, open_shop
from tests.harness.supervised import Daemon, daemon

TEXT_BYTES = 256
WINDOW = 4_096
"""The contract's bound of messages without an answer."""
PATIENCE_S = 120.0
FIRST_USER = 15550200000
SHOP_NUMBER = "+15550100100"
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

    def __init__(self, running: Daemon, fleet: FleetProcess, business: Business) -> None:
        self.processes = DaemonProcesses(running.process.pid)
        self.fleet = fleet
        self.business = business
        self._own_usage = psutil.Process()

    async def establish(self, users: int) -> None:
        """A first contact with every user, and an answer from each."""
        await self.fleet("register", users=users, devices_each=1, first_number=FIRST_USER)
        await self.fleet("begin", expected=users)
        self.business.events.begin()
        await self.business.send(users, WINDOW)
        await self.fleet("finish", patience_s=PATIENCE_S)
        await self.fleet("answer", each=1)
        await self.business.until_delivered(users, PATIENCE_S)

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
        async with daemon(Path(folder)) as running:
            shop = await open_shop(running, SHOP_NUMBER)
            async with _fleet(running) as fleet, _business(shop, users) as business:
                yield Stage(running, fleet, business)


@asynccontextmanager
async def _business(shop: Shop, users: int) -> AsyncIterator[Business]:
    async with shop.client() as client:
        numbers = [f"+{FIRST_USER + user}" for user in range(users)]
        business = Business(client, numbers, "x" * TEXT_BYTES)
        reading = asyncio.create_task(business.read())
        try:
            yield business
        finally:
            reading.cancel()
            await asyncio.wait([reading])


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
