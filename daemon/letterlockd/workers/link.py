"""The pool's end of the pipes to one child: questions out, answers in order, or the child is lost.

    starting ──hello──▶ serving ──aclose──▶ ended
        │                  │
        └── end of the pipe, bad answer, no answer in time ──▶ lost: killed, for good

A child that answers anything unexpected is not asked again: it is killed, and every question
that it had learns of it, with whether it was the one being worked. Knows no job.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, Self, TypeVar, cast

import structlog

from letterlockd.workers.frames import HEADER, HELLO, BadFrame, Unpacker

__all__ = ["ChildLost", "Link"]

_log = structlog.get_logger(__name__)

_EXIT_SECONDS = 5.0
"""A child ends within microseconds of its input's end, unless it still computes."""

_DEATH_SECONDS = 1.0
"""Between the end of its pipes and the end of a dying child. Killing it in between would only take
its exit status away from the loop that waits for it."""

_MAX_LINE_BYTES = 1_000
_MAX_LINES = 100
"""What a child may say on standard error in its life; the rest is dropped, and said so once."""

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""NumPy's linear algebra, which the ratchet never calls, starts a thread for each processor at
import: 140 ms of processor time at a child's start on two of them."""

T = TypeVar("T")


class ChildLost(Exception):
    """The child is gone. `working`: it went while this very question was worked."""

    def __init__(self, cause: str, *, working: bool) -> None:
        super().__init__(cause)
        self.working = working


class _Question(NamedTuple, Generic[T]):
    sequence: int
    read: Callable[[bytes], T]
    answer: asyncio.Future[T]


class Link(asyncio.SubprocessProtocol):
    """One child process. Make it with `Link.launch`."""

    def __init__(self, label: str, deadline_seconds: float) -> None:
        self._label = label
        self._deadline_seconds = deadline_seconds
        self._loop = asyncio.get_running_loop()
        self._unpacker = Unpacker()
        self._questions: deque[_Question[object]] = deque()
        self._sequence = 0
        self._hello: asyncio.Future[None] = self._loop.create_future()
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._deadline: asyncio.TimerHandle | None = None
        self._ended = False
        self._dying = False
        self._heard = b""
        self._lines = 0

    @classmethod
    async def launch(
        cls,
        command: Sequence[str],
        *,
        label: str,
        start_seconds: float,
        deadline_seconds: float,
    ) -> Self:
        """Spawn a child and wait for its hello. Raises `ChildLost`; leaves no process behind."""
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.subprocess_exec(
                lambda: cls(label, deadline_seconds), *command, env={**os.environ, **_ONE_THREAD}
            )
        except OSError as error:
            raise ChildLost(f"cannot be spawned: {error.strerror}", working=False) from error
        try:
            async with asyncio.timeout(start_seconds):
                await link._hello
        except TimeoutError:
            await link.kill()
            raise ChildLost("no hello in time", working=False) from None
        except BaseException:
            await link.kill()
            raise
        return link

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._transport.get_pid()

    @property
    def alive(self) -> bool:
        """Whether it takes questions."""
        return not self._ended

    def ask(self, question: bytes, read: Callable[[bytes], T]) -> asyncio.Future[T]:
        """Send a question now; questions are answered in order.

        The future gives what `read` makes of the answer, or raises `ChildLost`; a `ValueError` of
        `read` is a bad answer, and the child is lost.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        if self._ended:
            answer.set_exception(ChildLost("already lost", working=False))
            return answer
        self._sequence += 1
        asked = _Question(self._sequence, read, answer)
        self._questions.append(cast("_Question[object]", asked))
        for part in (HEADER.pack(len(question), self._sequence), question):
            if not self._stdin.is_closing():  # else it is gone, and all questions will hear of it
                self._stdin.write(part)
        if len(self._questions) == 1:
            self._watch()
        return answer

    async def aclose(self) -> None:
        """End the child by the end of its input; kill it if it does not take the hint."""
        self._ended = True
        self._stdin.close()
        await self._end_within(_EXIT_SECONDS)

    async def kill(self) -> None:
        """End the child now and wait until it is gone."""
        self._end("stopped by the pool")
        await self._end_within(_DEATH_SECONDS if self._dying else 0.0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process was spawned."""
        self._transport = cast("asyncio.SubprocessTransport", transport)
        self._stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Answers came, or a line for the log."""
        if fd != 1:
            self._hear(data)
            return
        try:
            for sequence, body in self._unpacker.feed(data):
                self._answered(sequence, body)
        except (BadFrame, ValueError):
            self._lose("bad answer")

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """A pipe ended: in order, or because the child is gone."""
        if fd != 2:
            self._dying = True
            self._lose("ended by itself")

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended and was waited for."""
        if not self._exited.done():
            self._exited.set_result(None)

    def _answered(self, sequence: int, body: bytes) -> None:
        if self._ended:
            return
        if not self._hello.done():
            if (sequence, body) != (0, HELLO):
                raise BadFrame("first frame is no hello")
            self._hello.set_result(None)
            return
        if not self._questions or self._questions[0].sequence != sequence:
            raise BadFrame("answers nothing that was asked")
        answer = self._questions[0].read(body)  # before it leaves the queue: it may be refused
        question = self._questions.popleft()
        if not question.answer.done():
            question.answer.set_result(answer)
        self._watch()

    def _watch(self) -> None:
        """The deadline of the question being worked: the first one."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._questions:
            self._deadline = self._loop.call_later(
                self._deadline_seconds, self._lose, "no answer in time"
            )

    def _lose(self, cause: str) -> None:
        if not self._ended:
            _log.warning("worker_lost", worker=self._label, cause=cause)
            self._end(cause)

    def _end(self, cause: str) -> None:
        if self._ended:
            return
        self._ended = True
        if not self._hello.done():
            self._hello.set_exception(ChildLost(cause, working=False))
        questions = list(self._questions)
        self._questions.clear()
        self._watch()
        for position, question in enumerate(questions):
            if not question.answer.done():
                question.answer.set_exception(ChildLost(cause, working=position == 0))
        if not self._dying:
            self._kill_process()

    async def _end_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._exited)
        except TimeoutError:
            self._kill_process()
            await self._exited
        self._transport.close()

    def _kill_process(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._transport.kill()

    def _hear(self, data: bytes) -> None:
        *lines, self._heard = (self._heard + data).split(b"\n")
        self._heard = self._heard[:_MAX_LINE_BYTES]
        for line in lines:
            self._lines += 1
            if self._lines < _MAX_LINES:
                said = line[:_MAX_LINE_BYTES].decode("ascii", "replace")
                _log.warning("worker_said", worker=self._label, line=said)
            elif self._lines == _MAX_LINES:
                _log.warning("worker_says_too_much", worker=self._label)
