"""A peer's server as a process: found, started in a fresh folder, waited for, stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from bench.ledger import LedgerError

_WAIT_S = 30.0
_PAUSE_S = 0.05


class Missing(Exception):
    """A peer is not installed here, and how to get it."""


def found(program: str, hint: str, *folders: str) -> str:
    """The path of a program, on PATH or in further folders. Raises `Missing`."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *folders])
    where = shutil.which(program, path=path)
    if where is None:
        raise Missing(f"no {program} here ({hint})")
    return where


def free_port() -> int:
    """A port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def fresh_folder(below: Path | None, user: str | None = None) -> AsyncIterator[Path]:
    """A folder that is removed afterwards; it belongs to `user`, if given."""
    with tempfile.TemporaryDirectory(dir=below) as name:
        if user is not None:
            shutil.chown(name, user)
        yield Path(name)


@asynccontextmanager
async def server(*command: str, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running server that takes connections on `port`."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_WAIT_S):
            while not await _answers(port):
                if process.returncode is not None:
                    raise LedgerError(f"{command[0]} ended with {process.returncode}")
                await asyncio.sleep(_PAUSE_S)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def family(pid: int, name: str) -> Mapping[int, str]:
    """A server and its children, in one role."""
    top = psutil.Process(pid)
    return {process.pid: name for process in (top, *top.children(recursive=True))}


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
