"""The two roles as processes of their own, each restarted when it ends, all that connects them
through links that a test can disturb.

    business ──▶ link ──▶ gateway ──▶ link ──▶ relay ◀── link ◀── devices

In place of the supervisor, because a test wants to say when a role stays away, and because the
supervisor knows no link in between. Looks like a `Daemon` to the people around it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
from letterlockd import clock, failpoints

from tests.harness.link import Link

ROLES = ("relay", "gateway")
STORES = {"gateway": "gateway", "registry": "gateway", "relay": "relay"}
"""Store → the role that has it."""

READY_SECONDS = 60


class Role:
    """One role, over all its processes. `away` keeps it from being started again."""

    def __init__(self, site: Site, name: str) -> None:
        self.name = name
        self.address = "127.0.0.1:0"
        self.ends: Counter[int] = Counter()
        """Exit codes so far."""
        self._site = site
        self._process: asyncio.subprocess.Process | None = None
        self._may_run = asyncio.Event()
        self._may_run.set()
        self.serving, self.ended = asyncio.Event(), asyncio.Event()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def process(self) -> psutil.Process:
        """Raises psutil.NoSuchProcess while there is none."""
        return psutil.Process(self.pid)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Killed, and not started again before the end of the block."""
        self._may_run.clear()
        try:
            self.kill()
            await self.ended.wait()
            yield
        finally:
            self._may_run.set()

    async def keep(self) -> None:
        """Run it, again and again, until this is cancelled."""
        try:
            while True:
                await self._may_run.wait()
                await self._run()
        finally:
            if self._process is not None and self._process.returncode is None:
                self._process.terminate()
                await self._process.wait()

    async def _run(self) -> None:
        self._process = await self._site.start(self.name, *self._site.settings_of(self))
        self.ended.clear()
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._take_in(line)
        self.serving.clear()
        code = await self._process.wait()
        self.ended.set()
        self.ends[code] += 1
        self._site.lost(self.name)

    def _take_in(self, line: bytes) -> None:
        self._site.text += line.decode()
        if not line.startswith(b"{"):
            return
        entry = json.loads(line)
        if entry["event"] == "serving":
            self.address = entry["address"]
            self.serving.set()
        self._site.took(entry)


class Site:
    """Both roles in one data folder, with their links."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "letterlock-data"
        self.roles = {name: Role(self, name) for name in ROLES}
        self.links = {
            "business": Link(lambda: self.roles["gateway"].address),
            "devices": Link(lambda: self.roles["relay"].address),
            "uplink": Link(lambda: self.roles["relay"].address),
        }
        self.text = ""
        self.entries: list[dict[str, Any]] = []
        self._armed = folder / "armed"
        self._armed.mkdir(parents=True)
        self._reached = False
        self._change = asyncio.Event()

    # What a Daemon shows to the people around it.

    @property
    def ca(self) -> Path:
        return self.data / "tls" / "ca.crt"

    @property
    def operator_token(self) -> str:
        return (self.data / "keys" / "operator.token").read_text().strip()

    @property
    def addresses(self) -> dict[str, str]:
        return {"gateway": self.links["business"].address, "relay": self.links["devices"].address}

    # Processes.

    def settings_of(self, role: Role) -> Sequence[str]:
        listen = ("--set", f"{role.name}.listen={role.address}")
        if role.name == "relay":
            return listen
        return (*listen, "--set", f"gateway.relay={self.links['uplink'].address}")

    async def start(
        self, command: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        """Any command of the daemon, in this site's folder, with all failpoints in place."""
        points = ";".join(f"{point}=kill" for point in FAILPOINTS)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "letterlockd", command, "--data", str(self.data)),
            *arguments,
            cwd=self.folder,
            env={
                **os.environ,
                failpoints.VARIABLE: points,
                failpoints.ARMED_VARIABLE: str(self._armed),
                clock.OFFSET_VARIABLE: str(self.clock_of(command)),
                **(environment or {}),
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
        )

    def committer(self, store: str) -> psutil.Process:
        """The writer of a store. Raises LookupError while there is none."""
        for process in self._children(STORES[store]):
            if "letterlockd.store.lmdb.committer" in process.cmdline() and any(
                f"/{store}/data.mdb" in opened.path for opened in process.open_files()
            ):
                return process
        raise LookupError(store)

    def workers(self) -> list[psutil.Process]:
        """The ratchet processes."""
        return [
            process
            for process in self._children("gateway")
            if "letterlockd.workers.child" in process.cmdline()
        ]

    def everybody(self) -> list[psutil.Process]:
        """Both roles and all their children."""
        found = []
        for role in self.roles.values():
            if role.serving.is_set():
                found += [role.process(), *role.process().children(recursive=True)]
        return found

    def _children(self, role: str) -> list[psutil.Process]:
        return self.roles[role].process().children(recursive=True)

    # Faults that the daemon itself is built for.

    async def passed(self, point: str, action: str = "kill") -> None:
        """Arm a failpoint and wait until a process has acted at it; taken back when cancelled."""
        armed = self._armed / point
        _write_at_once(armed, action)
        try:
            while armed.exists():  # noqa: ASYNC110 - another process takes it away
                await asyncio.sleep(0.01)
        finally:
            armed.unlink(missing_ok=True)

    def clock_of(self, role: str) -> Path:
        return self.folder / f"clock-{role}"

    def set_clock(self, role: str, offset_ms: int) -> None:
        """Put the wall clock of a role's processes off by so much."""
        _write_at_once(self.clock_of(role), str(offset_ms))

    # What is known of it.

    def took(self, entry: dict[str, Any]) -> None:
        self.entries.append(entry)
        if entry["event"] == "relay_reached":
            self._reached = True
        elif entry["event"] in {"relay_lost", "relay_unreachable"}:
            self._reached = False
        self._change.set()

    def lost(self, role: str) -> None:
        """A process of this role has ended."""
        if role == "gateway":
            self._reached = False
        self._change.set()

    async def whole(self) -> None:
        """Wait until both roles serve and the gateway has its relay."""
        async with asyncio.timeout(READY_SECONDS):
            while not (self._reached and all(r.serving.is_set() for r in self.roles.values())):
                self._change.clear()
                await self._change.wait()

    def faults_of_ours(self) -> list[str]:
        """What was logged as a bug: level error, but for what the faults bring about."""
        return [
            f"{entry['role']}: {entry['event']} {entry.get('exception', '')}"
            for entry in self.entries
            if entry.get("log_level", entry.get("level")) == "error"
            and entry["event"] != "cannot_run"
        ]


_FLOWS = ("outbound", "inbound", "sent", "healing")
FAILPOINTS = (
    *(f"gateway.{flow}.{when}_commit" for flow in _FLOWS for when in ("before", "after")),
    "gateway.inbound.after_ack",
    *(
        f"relay.{flow}.{when}_commit"
        for flow in ("submit", "ack", "bundle")
        for when in ("before", "after")
    ),
    *(f"store.{store}.commit.{when}" for store in STORES for when in ("before", "after")),
    "workers.job.received",
    "workers.job.answering",
)
"""Every place around a commit that the daemon passes in its daily work."""


def _write_at_once(path: Path, text: str) -> None:
    """So that nobody reads half of it."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.rename(path)


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """Both roles running; at the end they are stopped in order, the gateway first."""
    running = Site(folder)
    made = await running.start("init", "--config", str(folder / "letterlock.toml"))
    _, text = await made.communicate()
    assert made.returncode == 0, text
    async with AsyncExitStack() as stack:
        for link in running.links.values():
            await stack.enter_async_context(link.listening())
        for name in ROLES:
            task = asyncio.create_task(running.roles[name].keep())
            stack.push_async_callback(_ended, task)
            async with asyncio.timeout(READY_SECONDS):
                await running.roles[name].serving.wait()
        await running.whole()
        yield running


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
