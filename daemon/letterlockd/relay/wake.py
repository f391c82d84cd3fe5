"""What one task waits for and anyone may set: an `asyncio.Event` for a single waiter.

A stream waits once for each frame, and an event's waiting costs as much as making the frame: it
asks for the running loop (a system call), and keeps a queue of those who wait.
"""

from __future__ import annotations

import asyncio

__all__ = ["Wake"]


class Wake:
    """Stays set until cleared. Made while the loop runs that it is used in."""

    __slots__ = ("_loop", "_set", "_waiter")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Let the task that waits, or the next one to wait, go on."""
        self._set = True
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def clear(self) -> None:
        """Let the next wait wait."""
        self._set = False

    async def wait(self) -> None:
        """Return when it is set. One task at a time."""
        if not self._set:
            self._waiter = self._loop.create_future()
            await self._waiter
