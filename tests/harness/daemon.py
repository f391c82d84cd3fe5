"""A real daemon for tests: processes, ports, folders, and the first business and users in it.

Starts `letterlockd` as a user would, on loopback ports that the machine chooses, and finds out from
its log where it listens and which processes it has.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from letterlock import AdminClient, BusinessClient, Device
from letterlock.device_store import DeviceStore, MemoryDeviceStore

READY_SECONDS = 60
STOP_SECONDS = 40


@dataclass
class Daemon:
    """A running `letterlockd serve`."""

    data: Path
    log: Path
    process: asyncio.subprocess.Process
    addresses: dict[str, str] = field(default_factory=dict)

    @property
    def ca(self) -> Path:
        return self.data / "tls" / "ca.crt"

    @property
    def gateway(self) -> str:
        return self.addresses["gateway"]

    @property
    def relay(self) -> str:
        return self.addresses["relay"]

    @property
    def operator_token(self) -> str:
        return (self.data / "keys" / "operator.token").read_text().strip()

    def admin(self) -> AdminClient:
        return AdminClient(self.gateway, self.operator_token, ca=self.ca)

    def business(self, token: str, number: str) -> BusinessClient:
        return BusinessClient(self.gateway, token, number=number, ca=self.ca)

    async def device(self, number: str, store: DeviceStore | None = None) -> Device:
        """A new user with this number: verified, registered, not yet connected."""
        device = Device(self.relay, store=store or MemoryDeviceStore(), ca=self.ca)
        await device.__aenter__()
        verification = await device.request_verification(number)
        await device.register(number, verification, self.code(verification))
        return device

    def code(self, verification_id: str) -> str:
        """The code that was sent for a verification."""
        return (self.data / "verification" / verification_id).read_text().strip()

    def role(self, name: str) -> psutil.Process:
        """The process of a role, found by its command line."""
        for child in psutil.Process(self.process.pid).children():
            command = child.cmdline()
            if "letterlockd" in command and name in command:
                return child
        raise LookupError(f"no process of role {name}")

    def processes(self) -> list[psutil.Process]:
        """The daemon's processes, all of them."""
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    async def kill(self, role: str) -> None:
        """kill -9 a role, and wait until the supervisor has a new one that serves."""
        before = self.log.read_text().count("role_ready")
        self.role(role).kill()
        await self._wait_for_log("role_ready", before + 1)

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()

    async def _wait_for_log(self, event: str, count: int) -> None:
        async with asyncio.timeout(READY_SECONDS):
            while self.log.read_text().count(event) < count:
                if self.process.returncode is not None:
                    raise RuntimeError(f"the daemon ended:\n{self.log.read_text()[-4000:]}")
                await asyncio.sleep(0.05)

    async def wait_ready(self) -> None:
        """Until both roles serve; learns their addresses."""
        await self._wait_for_log("role_ready", 2)
        for line in self.log.read_text().splitlines():
            entry = json.loads(line) if line.startswith("{") else {}
            if entry.get("event") == "role_ready":
                self.addresses[entry["name"]] = entry["address"]


@asynccontextmanager
async def running_daemon(
    folder: Path, *, env: Mapping[str, str] | None = None, **settings: object
) -> AsyncIterator[Daemon]:
    """A daemon with its data below `folder`; `settings` by dotted key with `__` for the dot."""
    chosen = {
        "gateway.listen": "127.0.0.1:0",
        "relay.listen": "127.0.0.1:0",
        "log.format": "json",
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    arguments = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
    log = folder / "log.jsonl"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "letterlockd", "serve", "--data", str(folder / "data")),
            *arguments,
            stdout=out,
            stderr=out,
            cwd=folder,
            env={**os.environ, **(env or {})},
        )
    daemon = Daemon(folder / "data", log, process)
    try:
        await daemon.wait_ready()
        yield daemon
    finally:
        await daemon.stop()


@dataclass(frozen=True)
class Shop:
    """A business with a number and a token."""

    business_id: str
    number: str
    token: str


async def open_shop(daemon: Daemon, name: str, number: str) -> Shop:
    """Create a business, give it a number and issue a token, as an operator would."""
    async with daemon.admin() as admin:
        business = await admin.create_business(name)
        await admin.add_number(business.business_id, number)
        issued = await admin.issue_token(business.business_id, label="test")
    return Shop(business.business_id, number, issued.token)


def leaks(folder: Path, needles: Mapping[str, bytes]) -> list[str]:
    """Which of the needles can be found in any file below `folder`: "name in file" each."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            held = path.read_bytes()
            hits = (name for name, needle in needles.items() if needle in held)
            found += [f"{name} in {path.name}" for name in hits]
    return found


def number_patterns(number: str) -> dict[str, bytes]:
    """The ways in which a phone number could stand in a file: text with and without +, UTF-16."""
    digits = re.sub(r"\D", "", number)
    return {
        "the number": digits.encode(),
        "the number in UTF-16": digits.encode("utf-16-le"),
        "the number as an integer": int(digits).to_bytes(8, "big").lstrip(b"\0"),
    }
