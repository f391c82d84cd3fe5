"""`letterlockd serve`: relay and gateway as processes of their own, started, watched, stopped.

    start relay ──ready──▶ start gateway ──ready──▶ both run ──SIGTERM──▶ stop gateway, then relay
                                                     │    ▲
                                        a role ended │    │ pause, longer each time
                                                     ▼    │
                                         worth a restart? ┴──no──▶ stop the other, exit

So the relay is blind by process (I3), also where people start with one command. A role holds the
read end of a pipe that only this process can write to: when this process dies in whatever way, the
pipe ends and the role drains and stops. Knows processes and their readiness, nothing of gRPC,
stores or messages; imports none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from letterlockd.exit_codes import ExitCode, restart_helps
from letterlockd.readiness import Ready, parse

__all__ = ["Plan", "supervise"]

_log = structlog.get_logger(__name__)

_READY_SECONDS = 180.0
"""A store that has to migrate takes its time; a role that hangs shall not hang us."""

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_KILL_AFTER_SECONDS = 15.0
"""Beyond the drain time of a role, before it is killed."""

RoleCommand = Callable[[str, int, Mapping[str, str]], Sequence[str]]
"""(role, ready fd, settings that the supervisor decides) → command line."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run and how patiently.

    `command` builds a role's command line; `inherited` are file descriptors that it gets. A role
    that ends more than `max_restarts` times within `window_seconds` is given up. `drain_seconds`
    is what a role takes to stop at most.
    """

    command: RoleCommand
    max_restarts: int
    window_seconds: float
    drain_seconds: float
    inherited: Sequence[int] = ()


class _GaveUp(Exception):
    """A role ended for good; carries our exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Role:
    """One role process, over its restarts."""

    def __init__(self, name: str, plan: Plan, pinned: dict[str, str]) -> None:
        self._name = name
        self._plan = plan
        self._pinned = pinned
        self._process: Process | None = None
        self._ends: deque[float] = deque(maxlen=plan.max_restarts + 1)
        self._was_ready = False
        self._stopping = False

    async def start(self) -> Ready:
        """Start it and wait until it serves. Raises `_GaveUp`."""
        while True:
            ready = await self._start_once()
            if ready is not None:
                self._was_ready = True
                # The next start must listen where clients know it.
                self._pinned[f"{self._name}.listen"] = ready.address
                _log.info("role_ready", name=self._name, address=ready.address)
                return ready
            await self._after_end()

    async def keep(self) -> None:
        """Start it again whenever it ends. Raises `_GaveUp`; returns when it was stopped."""
        while self._process is not None:
            await self._process.wait()
            if self._stopping:
                return
            await self._after_end()
            await self.start()

    async def stop(self) -> None:
        """Ask it to drain; kill it when it takes far too long."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._plan.drain_seconds + _KILL_AFTER_SECONDS):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            code = await process.wait()
        _log.info("role_stopped", name=self._name, exit_code=code)

    async def _start_once(self) -> Ready | None:
        """Ready, or None when it ended before."""
        read, write = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._plan.command(self._name, write, self._pinned),
                stdin=asyncio.subprocess.PIPE,  # never written: its end is our end
                pass_fds=(write, *self._plan.inherited),
                process_group=0,  # Ctrl-C is ours to forward, in order
            )
        finally:
            os.close(write)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                ready = parse(await _line(read))
        except BaseException:
            self._process.kill()
            await self._process.wait()
            raise
        if ready is None:
            await self._process.wait()
        return ready

    async def _after_end(self) -> None:
        """Pause before the next start, or `_GaveUp` when that is not worth it."""
        code = self._process.returncode if self._process is not None else None
        now = asyncio.get_running_loop().time()
        _log.warning("role_ended", name=self._name, exit_code=code)
        if code is None or not restart_helps(code, was_ready=self._was_ready):
            raise _GaveUp(ExitCode.BUG if code is None else code)
        self._ends.append(now)
        recent = sum(now - end <= self._plan.window_seconds for end in self._ends)
        if recent > self._plan.max_restarts:
            _log.error("role_given_up", name=self._name, restarts=self._plan.max_restarts)
            raise _GaveUp(ExitCode.GAVE_UP)
        await asyncio.sleep(min(_FIRST_PAUSE_SECONDS * 2 ** (recent - 1), _LONGEST_PAUSE_SECONDS))


async def supervise(plan: Plan, on_ready: Callable[[Ready, Ready], None]) -> int:
    """Run both roles until SIGTERM or SIGINT; returns the exit code. `on_ready` is called once,
    with the relay's and the gateway's readiness."""
    pinned: dict[str, str] = {}
    relay, gateway = _Role("relay", plan, pinned), _Role("gateway", plan, pinned)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.create_task(_run(relay, gateway, pinned, on_ready))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return _code_of(running) if running.done() else ExitCode.OK
    finally:
        running.cancel()
        stopping.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
        await gateway.stop()
        await relay.stop()


async def _run(
    relay: _Role,
    gateway: _Role,
    pinned: dict[str, str],
    on_ready: Callable[[Ready, Ready], None],
) -> None:
    relay_ready = await relay.start()
    pinned["gateway.relay"] = _reachable(relay_ready.address)
    on_ready(relay_ready, await gateway.start())
    async with asyncio.TaskGroup() as roles:
        roles.create_task(relay.keep())
        roles.create_task(gateway.keep())


def _code_of(running: asyncio.Task[None]) -> int:
    error = running.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, _GaveUp):
        return error.code
    if error is not None:
        raise error
    return ExitCode.OK


def _reachable(address: str) -> str:
    """Where the gateway finds a relay that listens on all addresses of this machine."""
    host, _, port = address.rpartition(":")
    local = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - compared, not bound
    return f"{local.get(host, host)}:{port}"


async def _line(fd: int) -> bytes:
    """One line from a pipe; what came before its end when there is none. Closes the pipe."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb")
    )
    try:
        return await reader.readline()
    finally:
        transport.close()
