"""The front's end of the pipe to its committer: requests out, answers to those who wait.

    starting ──ready──▶ serving ──aclose──▶ draining ──all answered──▶ closed
        │                  │                    │
        └──── fault, end of the pipe, or no answer in time ────▶ failed (for good)

Requests of one loop turn leave as one frame. When the committer is lost, what was in flight has
an unknown outcome: a repeat from here could do a transaction twice, so the link never starts a
second committer. It fails for good, the daemon exits and is started again, and the next start
reads what is true from the disk. That is the only way of recovery (crash-only), so it is the one
that the tests walk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any, Self, cast

from letterlockd.errors import EnvironmentFault
from letterlockd.store.lmdb.gate import Gate
from letterlockd.store.lmdb.wire import FULL, Start, Unpacker, pack
from letterlockd.store.port import StoreFull, StoreUnavailable

__all__ = ["CommitterLink"]

_MAX_COMMITS_QUEUED = 8_192
_MAX_BYTES_QUEUED = 16 * 1024 * 1024

_ANSWER_SECONDS = 60.0
"""A disk that answers nothing for this long is taken for lost."""

_EXIT_SECONDS = 10.0

_FULL_RETRY_MS = 5_000
"""About what a sweep needs to make space; sooner repeats would only burn time."""


class CommitterLink(asyncio.SubprocessProtocol):
    """One committer process. Make it with `CommitterLink.launch`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._gate = Gate(max_commits=_MAX_COMMITS_QUEUED, max_bytes=_MAX_BYTES_QUEUED)
        self._unpacker = Unpacker()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[StoreUnavailable | None] = self._loop.create_future()
        self._idle = asyncio.Event()
        self._idle.set()
        self._open_calls = 0
        self._waiting: dict[int, tuple[asyncio.Future[Any], int, int]] = {}
        self._outgoing: list[tuple[int, int, Any]] = []
        self._last_id = 0
        self._answers = 0
        self._watchdog: asyncio.TimerHandle | None = None
        self._closing = False
        self._drained = False

    @classmethod
    async def launch(cls, start: Start, *, lock: int, timeout_seconds: float) -> Self:
        """Spawn a committer that keeps the open file `lock`, and wait until its store is ready.

        Raises `EnvironmentFault` with the committer's reason, `StoreUnavailable` when it dies.
        """
        command = (sys.executable, "-P", "-m", "letterlockd.store.lmdb.committer")
        _, link = await asyncio.get_running_loop().subprocess_exec(
            cls, *command, stderr=None, pass_fds=(lock,)
        )
        try:
            link._write(tuple(start))
            async with asyncio.timeout(timeout_seconds):
                await link._ready
        except TimeoutError as error:
            await link._kill()
            raise StoreUnavailable("the committer was not ready in time") from error
        except BaseException:
            await link._kill()
            raise
        return link

    @property
    def pid(self) -> int:
        """Process id of the committer."""
        return self._transport.get_pid()

    @property
    def open_calls(self) -> int:
        """Requests that are not answered yet, those that wait to be sent included."""
        return self._open_calls

    def check_open(self) -> None:
        """Raise `StoreUnavailable` after a failure, or when closing."""
        if self._ended.done() and (failure := self._ended.result()) is not None:
            raise StoreUnavailable(failure.message)
        if self._closing:
            raise StoreUnavailable("the store is closed")

    async def ask(self, kind: int, body: object, *, commits: int, size: int) -> Any:
        """The answer to one request; waits while more than the bounds is queued.

        Raises `StoreFull` or `StoreUnavailable`. Cancelling a call does not recall its request.
        """
        self.check_open()
        self._open_calls += 1
        self._idle.clear()
        try:
            await self._gate.enter(commits, size)
        except BaseException:
            self._settled()
            raise
        status, answer = await self._send(kind, body, commits, size)
        if status == FULL:
            raise StoreFull("no space left for this store", retry_after_ms=_FULL_RETRY_MS)
        return answer

    async def ended(self) -> StoreUnavailable | None:
        """Wait for the end: the failure, or None after an orderly close."""
        return await asyncio.shield(self._ended)

    async def aclose(self) -> None:
        """Refuse new calls, wait for the answers to all earlier ones, end the committer."""
        self._closing = True
        await self._idle.wait()
        self._drained = True
        self._stop_watching()
        if not self._ended.done():
            self._stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EXIT_SECONDS):
                    await asyncio.shield(self._exited)
        await self._kill()
        if not self._ended.done():
            self._ended.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process was spawned."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Answers came."""
        for message in self._unpacker.feed(data):
            if isinstance(message, list):
                self._answered(message)
            elif message[0] == "ready":
                self._ready.set_result(None)
            else:
                _, reason, text = message
                self._fail(EnvironmentFault(text, reason=reason))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """The committer closed its end: in order, or because it is gone."""
        if not self._drained:
            self._fail(EnvironmentFault("the committer process is gone"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended and was waited for."""
        if not self._exited.done():
            self._exited.set_result(None)

    def _send(self, kind: int, body: object, commits: int, size: int) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._last_id += 1
        self._waiting[self._last_id] = (answer, commits, size)
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append((self._last_id, kind, body))
        if self._watchdog is None:
            self._watch()
        return answer

    def _flush(self) -> None:
        requests, self._outgoing = self._outgoing, []
        self._write(requests)

    def _write(self, message: object) -> None:
        if not self._stdin.is_closing():  # else it is gone, and who waits will hear of it
            self._stdin.write(pack(message))

    def _answered(self, answers: list[tuple[int, int, Any]]) -> None:
        self._answers += 1
        for id_, status, body in answers:
            answer, commits, size = self._waiting.pop(id_)
            if not answer.done():
                answer.set_result((status, body))
            self._gate.leave(commits, size)
            self._settled()

    def _settled(self) -> None:
        self._open_calls -= 1
        if self._open_calls == 0:
            self._idle.set()

    def _watch(self) -> None:
        self._watchdog = self._loop.call_later(_ANSWER_SECONDS, self._judge, self._answers)

    def _judge(self, answers_before: int) -> None:
        self._watchdog = None
        if self._waiting and self._answers == answers_before:
            self._fail(EnvironmentFault("the committer does not answer"))
        elif self._waiting:
            self._watch()

    def _fail(self, fault: EnvironmentFault) -> None:
        if not self._ready.done():
            self._ready.set_exception(fault)
        if self._ended.done():
            return
        self._ended.set_result(StoreUnavailable(fault.message))
        self._gate.break_down(StoreUnavailable(fault.message))
        for answer, _, _ in self._waiting.values():
            if not answer.done():
                answer.set_exception(StoreUnavailable(fault.message))
            self._settled()
        self._waiting.clear()
        self._stop_watching()

    async def _kill(self) -> None:
        """End the process if it has not ended by itself. Everything answered is durable."""
        if not self._exited.done():
            with contextlib.suppress(ProcessLookupError):  # it has ended, its pipes have not
                self._transport.kill()
            await asyncio.shield(self._exited)
        self._transport.close()

    def _stop_watching(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
