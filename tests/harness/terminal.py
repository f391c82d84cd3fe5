"""The `letterlock` command as a person types it, beside a running daemon."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from tests.harness.supervised import Daemon


class Terminal:
    """Where a person types: a folder with the daemon's data in it."""

    def __init__(self, running: Daemon) -> None:
        folder = running.data.parent
        self._folder = folder
        self._environment = {
            **os.environ,
            "XDG_CONFIG_HOME": str(folder / "config"),
            "LETTERLOCK_GATEWAY": running.addresses["gateway"],  # not the default ports here
            "LETTERLOCK_RELAY": running.addresses["relay"],
        }

    async def type(
        self, *arguments: str, answer: str | None = None
    ) -> tuple[int, list[dict[str, object]], str]:
        """Exit code, what came out, and what was told besides. With an `answer` standard input is a
        terminal at which it was typed already."""
        keyboard = None if answer is None else os.openpty()
        if keyboard is not None:
            os.write(keyboard[0], f"{answer}\n".encode())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from letterlock.cli.commands import main; main()"),
            *arguments,
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL if keyboard is None else keyboard[1],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, told = await process.communicate()
        for end in keyboard or ():
            os.close(end)
        rows = [json.loads(line) for line in out.decode().splitlines()]
        return process.returncode or 0, rows, told.decode()

    async def done(self, *arguments: str) -> list[dict[str, object]]:
        """What came out of a command that succeeds."""
        code, rows, told = await self.type(*arguments)
        assert code == 0, (arguments, told)
        return rows
