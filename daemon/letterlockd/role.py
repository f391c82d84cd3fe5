"""One role process from start to exit code: signals, readiness, draining, closing.

    compose ──▶ listen ──▶ ready ──▶ SIGTERM, SIGINT or end of stdin
                                       │
         what was opened last is       ▼
         closed first  ◀── close ◀── drain (health says NOT_SERVING, streams are told, calls end)

A part that fails ends the process: what it had in flight has an unknown outcome, and a fresh start
from the disk is the one way back that is tested on every start (crash-only). Knows no role's parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import structlog
import uvloop

from letterlockd import collector, failpoints
from letterlockd.clock import OFFSET_VARIABLE
from letterlockd.errors import EnvironmentFault, LetterlockError
from letterlockd.exit_codes import ExitCode, of_error
from letterlockd.health import Health
from letterlockd.readiness import Ready, announce
from letterlockd.rpc.server import ListenFault, RpcServer
from letterlockd.settings import Settings
from letterlockd.telemetry import Counters, set_up_logs, watch_loop

__all__ = ["Composed", "run_role"]

_log = structlog.get_logger(__name__)

_CLOSE_SECONDS = 10.0
"""Beyond the drain time, for closing stores and children; then the process ends as it is."""


@dataclass(frozen=True, slots=True)
class Composed:
    """A role whose parts are open, before it listens.

    `drain(grace_s)` tells open streams and returns when they ended or the time is over. `running`
    go on until they are cancelled; one that returns an error or raises ends the process. `health`
    is told of through `server`.
    """

    server: RpcServer
    health: Health
    listen: str
    metrics: str
    drain: Callable[[float], Awaitable[None]]
    running: Sequence[Callable[[], Awaitable[LetterlockError | None]]]
    counters: Counters = field(default_factory=Counters)


Compose = Callable[[Settings, AsyncExitStack], Awaitable[Composed]]


def run_role(
    name: str,
    settings: Settings,
    compose: Compose,
    *,
    ready_fd: int | None,
    until_stdin_ends: bool,
) -> int:
    """Run one role until it is told to stop; returns the exit code."""
    set_up_logs(name, level=settings.log.level, style=settings.log.format)
    _say_if_tested()
    os.umask(0o077)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(name, settings, compose, ready_fd, until_stdin_ends))
    except Exception as error:
        return _told(error)
    return ExitCode.OK


def _say_if_tested() -> None:
    """Faults on purpose are for tests alone: whoever finds them in production must see why."""
    if points := failpoints.configured():
        _log.warning("failpoints_are_set", points=len(points))
    if OFFSET_VARIABLE in os.environ:
        _log.warning("clock_is_set_by_a_test")


async def _serve(
    name: str, settings: Settings, compose: Compose, ready_fd: int | None, until_stdin_ends: bool
) -> None:
    watch_loop(asyncio.get_running_loop())
    grace = settings.serve.drain_seconds
    stop = _stop_event(until_stdin_ends)
    async with _deadline_for_closing() as closing, AsyncExitStack() as opened:
        role = await _composed(name, settings, compose, opened)
        collector.calm()
        opened.push_async_callback(role.server.drain, 0)
        _expose(name, role, opened)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(_watched(run)) for run in role.running]
            await role.server.start()
            await role.health.begin(role.server.report)
            running.append(tasks.create_task(role.health.run(role.server.report)))
            address = f"{role.listen.rpartition(':')[0]}:{role.server.port}"
            _log.info("serving", address=address)
            announce(Ready(name, address), ready_fd)
            await stop.wait()
            _log.info("draining", grace_s=grace)
            closing.reschedule(asyncio.get_running_loop().time() + grace + _CLOSE_SECONDS)
            await _drain(role, grace)
            for task in running:
                task.cancel()
    _log.info("stopped")


def _deadline_for_closing() -> asyncio.Timeout:
    """Set when draining begins."""
    return asyncio.timeout(None)


async def _drain(role: Composed, grace: float) -> None:
    """Streams and server at the same time: the server refuses new calls, the streams end."""
    async with asyncio.TaskGroup() as both:
        both.create_task(_awaited(role.drain(grace)))
        both.create_task(role.server.drain(grace))


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _watched(run: Callable[[], Awaitable[LetterlockError | None]]) -> None:
    failure = await run()
    if failure is not None:
        raise failure


async def _composed(
    name: str, settings: Settings, compose: Compose, opened: AsyncExitStack
) -> Composed:
    try:
        return await compose(settings, opened)
    except ListenFault as fault:  # a server does not know which setting it listens by
        raise ListenFault(f"{name}.listen: {fault.message}") from None


def _expose(name: str, role: Composed, opened: AsyncExitStack) -> None:
    if not role.metrics:
        return
    try:
        opened.callback(role.counters.expose(role.metrics))
    except OSError as error:
        raise ListenFault(
            f"{name}.metrics: cannot listen on {role.metrics}: {error.strerror}"
        ) from error


def _stop_event(until_stdin_ends: bool) -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_stdin_ends:

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                if not os.read(sys.stdin.fileno(), 4096):
                    loop.remove_reader(sys.stdin.fileno())
                    stop.set()

        os.set_blocking(sys.stdin.fileno(), False)
        loop.add_reader(sys.stdin.fileno(), read)
    return stop


def _told(error: Exception) -> int:
    """Log what ended the process; its exit code."""
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    if isinstance(cause, EnvironmentFault):
        _log.error("cannot_run", reason=cause.reason, detail=cause.message)
        return of_error(cause)
    if isinstance(cause, LetterlockError):
        _log.error("failed", reason=cause.reason, exc_info=cause)
        return of_error(cause)
    _log.error("crashed", exc_info=cause)
    return ExitCode.BUG
