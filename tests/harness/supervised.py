"""Runs `letterlockd serve` in a folder, on free ports, and reads its log."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil

from tests.harness.channels import OWN_CONNECTION

LISTEN_ANYWHERE = ("--set", "gateway.listen=127.0.0.1:0", "--set", "relay.listen=127.0.0.1:0")


class Daemon:
    """A running supervisor with its roles. Addresses are known once `ready` has returned."""

    def __init__(self, folder: Path, process: asyncio.subprocess.Process) -> None:
        self.data = folder / "letterlock-data"
        self.process = process
        self.entries: list[dict[str, Any]] = []
        self.text = ""
        self.addresses: dict[str, str] = {}
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    @property
    def ca(self) -> Path:
        return self.data / "tls" / "ca.crt"

    @property
    def operator_token(self) -> str:
        return (self.data / "keys" / "operator.token").read_text().strip()

    async def ready(self) -> None:
        await self.logged(lambda _: self.addresses.keys() >= {"relay", "gateway"})

    async def logged(self, found: Callable[[dict[str, Any]], bool], *, after: int = 0) -> int:
        """Wait for a log entry; returns its place, from which to wait for the next. An end of the
        log before is an error."""
        at = after
        async with self._news:
            while True:
                while at < len(self.entries):
                    if found(self.entries[at]):
                        return at + 1
                    at += 1
                if self._reader.done():
                    raise AssertionError(f"the daemon ended:\n{self.text}")
                await self._news.wait()

    def role(self, name: str) -> psutil.Process:
        """The process of a role."""
        children = psutil.Process(self.process.pid).children()
        (found,) = [process for process in children if name in process.cmdline()]
        return found

    async def kill(self, name: str) -> None:
        """SIGKILL to a role; returns when the supervisor has a new one that serves."""
        place = len(self.entries)
        self.role(name).kill()
        await self.restarted(name, after=place)

    async def restarted(self, name: str, *, after: int) -> int:
        """Wait until a role serves again, and the gateway has its relay again."""
        await self.logged(
            lambda entry: entry["event"] == "role_ready" and entry["name"] == name, after=after
        )
        return await self.logged(lambda entry: entry["event"] == "relay_reached", after=after)

    async def whole(self) -> None:
        """Wait until both roles serve, whatever has ended before, and the gateway has its relay."""
        async with self._news:
            while not self._is_whole():
                if self._reader.done():
                    raise AssertionError(f"the daemon ended:\n{self.text}")
                await self._news.wait()

    def _is_whole(self) -> bool:
        serving: set[str] = set()
        for entry in self.entries:
            if entry["event"] == "role_ready":
                serving.add(entry["name"])
            elif entry["event"] == "role_ended":
                serving -= {entry["name"], "uplink"}
            elif entry["event"] == "relay_reached":
                serving.add("uplink")
            elif entry["event"] in {"relay_lost", "relay_unreachable"}:
                serving.discard("uplink")
        return len(serving) == len(("relay", "gateway", "uplink"))

    def channel(self, role: str) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.ca.read_bytes())
        return grpc.aio.secure_channel(self.addresses[role], credentials, OWN_CONNECTION)

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        code = await self.process.wait()
        await self._reader
        return code

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._news:
                self.text += line.decode()
                if line.startswith(b"{"):
                    entry = json.loads(line)
                    self.entries.append(entry)
                    if entry["event"] == "role_ready":
                        self.addresses[entry["name"]] = entry["address"]
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()


@asynccontextmanager
async def daemon(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> AsyncIterator[Daemon]:
    """`letterlockd serve` in `folder`; stopped at the end, by force if the block failed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "letterlockd", "serve", *LISTEN_ANYWHERE, *arguments),
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stderr=asyncio.subprocess.PIPE,
        limit=1024 * 1024,
        pass_fds=pass_fds,
    )
    running = Daemon(folder, process)
    try:
        await running.ready()
        yield running
    except BaseException:
        print(running.text)  # noqa: T201 - pytest shows it with the failure
        raise
    finally:
        await running.stop()
