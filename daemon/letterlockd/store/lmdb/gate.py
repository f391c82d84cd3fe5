"""Back-pressure in front of the committer: bounded commits and bytes, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Gate"]


class Gate:
    """Lets calls in while they fit; one call that is larger than the bounds passes alone."""

    def __init__(self, *, max_commits: int, max_bytes: int) -> None:
        self._max_commits = max_commits
        self._max_bytes = max_bytes
        self._commits = 0
        self._bytes = 0
        self._waiting: deque[tuple[asyncio.Future[None], int, int]] = deque()

    async def enter(self, commits: int, size: int) -> None:
        """Return when there is room for `commits` of together `size` bytes; pair with `leave`."""
        if not self._waiting and self._fits(commits, size):
            self._take(commits, size)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, commits, size))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave(commits, size)  # room was given in the same tick: pass it on
            else:
                self._admit()  # it may have held up smaller calls behind it
            raise

    def leave(self, commits: int, size: int) -> None:
        """Give back what `enter` took."""
        self._commits -= commits
        self._bytes -= size
        self._admit()

    def break_down(self, error: Exception) -> None:
        """Fail all who wait."""
        while self._waiting:
            turn, _, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error)

    def _admit(self) -> None:
        while self._waiting:
            turn, commits, size = self._waiting[0]
            if turn.done():
                self._waiting.popleft()
            elif self._fits(commits, size):
                self._waiting.popleft()
                self._take(commits, size)
                turn.set_result(None)
            else:
                return

    def _fits(self, commits: int, size: int) -> bool:
        return self._commits == 0 or (
            self._commits + commits <= self._max_commits and self._bytes + size <= self._max_bytes
        )

    def _take(self, commits: int, size: int) -> None:
        self._commits += commits
        self._bytes += size
