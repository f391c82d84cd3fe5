"""Makes single calls with a credential and a deadline, and repeats what is safe to repeat.

Knows no service.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import grpc.aio

from letterlock.reconnect import Sleep, repeat
from letterlock.retry import Backoff, RetryPolicy

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

CALL_ATTEMPTS = 5
"""How often a single call is tried before its caller hears of it."""


class Calls:
    """The single calls of one client. Every method raises LetterlockError."""

    def __init__(
        self, *, deadline: float, retry: RetryPolicy, jitter: Callable[[], float], sleep: Sleep
    ) -> None:
        """`deadline`: seconds for each try. `retry.attempts` replaces CALL_ATTEMPTS."""
        self.metadata: tuple[tuple[str, str], ...] = ()
        """What authenticates a call; see `bearer`."""
        self._deadline = deadline
        self._retry = retry
        self._jitter = jitter
        self._sleep = sleep

    async def repeated(
        self, call: grpc.aio.UnaryUnaryMultiCallable[_Request, _Answer], request: _Request
    ) -> _Answer:
        """A call that is safe to repeat."""
        attempts = self._retry.attempts
        return await self._try(call, request, CALL_ATTEMPTS if attempts is None else attempts)

    async def once(
        self, call: grpc.aio.UnaryUnaryMultiCallable[_Request, _Answer], request: _Request
    ) -> _Answer:
        """A call that must not be made again."""
        return await self._try(call, request, 1)

    async def _try(
        self,
        call: grpc.aio.UnaryUnaryMultiCallable[_Request, _Answer],
        request: _Request,
        attempts: int,
    ) -> _Answer:
        return await repeat(
            lambda: call(request, timeout=self._deadline, metadata=self.metadata),
            Backoff(replace(self._retry, attempts=attempts), self._jitter),
            self._sleep,
        )
