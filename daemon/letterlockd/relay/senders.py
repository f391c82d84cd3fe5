"""How verification codes leave: into a folder (development, demos), or through a program.

A code and its number never stand in an argument list, an exception or a log line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from letterlockd.errors import EnvironmentFault

__all__ = ["CommandSender", "FolderSender", "VerificationNotSent"]

_log = structlog.get_logger(__name__)

_MAX_FILES = 100
_DEADLINE_SECONDS = 10.0
_MAX_RUNNING = 8
_OURS = re.compile(r"\.?[0-9a-f]{32}")


class VerificationNotSent(EnvironmentFault):
    """The folder cannot be written, or the program failed or took too long."""

    reason = "VERIFICATION_NOT_SENT"


class FolderSender:
    """Writes `<verification id>` with nothing but the code, mode 0600. Whoever reads the folder can
    register any number: not for production. The newest 100 files stay until they are cleared."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writing = asyncio.Lock()  # two that clean up at a time delete each other's finds
        self._cannot_clear = False

    async def send(self, verification_id: str, number: str, code: str) -> None:
        """As the port says."""
        try:
            async with self._writing:
                await asyncio.to_thread(self._write, verification_id, code)
        except OSError as error:
            raise VerificationNotSent(
                f"verification folder cannot be written: {error.strerror}"
            ) from None

    async def clear(self, pending: Callable[[str], Awaitable[bool]]) -> None:
        """As the port says. What cannot be removed is told once, and tried again at the next."""
        try:
            async with self._writing:
                for path in await asyncio.to_thread(self._codes):
                    if not await pending(path.name.removeprefix(".")):
                        await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as error:
            if not self._cannot_clear:
                _log.warning("verification_codes_stay", cause=error.strerror)
            self._cannot_clear = True
        else:
            self._cannot_clear = False

    def _codes(self) -> list[Path]:
        """Our files, those too that a crash left aside; nobody else's."""
        if not self._folder.exists():
            return []
        return [each for each in self._folder.iterdir() if _OURS.fullmatch(each.name)]

    def _write(self, verification_id: str, code: str) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = self._folder / f".{verification_id}"
        file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w") as writer:
            writer.write(code)
        written = aside.replace(self._folder / verification_id)
        self._clean(keep=written)

    def _clean(self, keep: Path) -> None:
        # File times are coarse: the file just written must not lose against one as young.
        files = sorted(
            (path for path in self._folder.iterdir() if path != keep),
            key=lambda path: path.stat().st_mtime_ns,
        )
        for path in files[: max(0, len(files) - _MAX_FILES + 1)]:
            path.unlink(missing_ok=True)


class CommandSender:
    """Runs the operator's program with two lines on its standard input, number and code; exit code
    0 means sent. It has ten seconds; at most eight run at a time."""

    def __init__(
        self, command: Sequence[str], *, deadline_seconds: float = _DEADLINE_SECONDS
    ) -> None:
        self._command = tuple(command)
        self._deadline = deadline_seconds
        self._running = asyncio.Semaphore(_MAX_RUNNING)

    async def send(self, verification_id: str, number: str, code: str) -> None:
        """As the port says."""
        try:
            async with asyncio.timeout(self._deadline), self._running:
                exit_code = await self._run(f"{number}\n{code}\n".encode())
        except TimeoutError:
            raise VerificationNotSent("the verification program took too long") from None
        except OSError as error:
            raise VerificationNotSent(
                f"the verification program cannot be run: {error.strerror}"
            ) from None
        if exit_code != 0:
            raise VerificationNotSent(f"the verification program ended with code {exit_code}")

    async def clear(self, pending: Callable[[str], Awaitable[bool]]) -> None:
        """As the port says: nothing is kept here."""

    async def _run(self, lines: bytes) -> int:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await process.communicate(lines)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        return process.returncode or 0
