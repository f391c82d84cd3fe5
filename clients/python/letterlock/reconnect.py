"""Repeats calls and streams until they are done: the loops that every client shares.

Knows how a stream ends and how to wait; knows nothing of what it carries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio

from letterlock.errors import LetterlockError, ServerError, Unavailable
from letterlock.faults import from_rpc
from letterlock.retry import Backoff

_Answer = TypeVar("_Answer")

Sleep = Callable[[float], Awaitable[None]]

_log = logging.getLogger("letterlock.streams")
"""INFO: an outage begins, with the LetterlockError as the record's argument, or is over.
DEBUG: each further attempt that failed."""

_STREAM_ENDED = (grpc.aio.AioRpcError, asyncio.InvalidStateError)
"""What a write to an ended stream raises; the reader learns the cause."""


async def repeat(
    attempt: Callable[[], Awaitable[_Answer]], backoff: Backoff, sleep: Sleep
) -> _Answer:
    """Make one call until it is answered or no further try is worth it. The call must be safe to
    repeat. Raises LetterlockError."""
    while True:
        try:
            return await attempt()
        except grpc.aio.AioRpcError as failed:
            error = from_rpc(failed)
        await sleep(backoff.after(error))


async def run_until_done(
    attempt: Callable[[], Awaitable[bool]], backoff: Backoff, sleep: Sleep
) -> None:
    """Call `attempt` (one stream, from opening to end) until it returns True.

    False or an error worth repeating: wait and call again. Raises the first error that is not.
    """
    while True:
        try:
            if await attempt():
                return
            error: LetterlockError = Unavailable("the stream was ended", reason="DRAINING")
        except LetterlockError as lost:
            error = lost
        wait = backoff.after(error)
        level = logging.INFO if backoff.failures == 1 else logging.DEBUG
        told = {"reason": error.reason, "wait_s": wait}
        _log.log(level, "stream lost, connecting again: %s", error, extra=told)
        await sleep(wait)


def stream_opened(backoff: Backoff) -> None:
    """There is a stream: the next failure is the first of another outage."""
    if backoff.failures:
        _log.info("stream open again")
    backoff.succeeded()


async def read_and_write(
    call: grpc.aio.StreamStreamCall[Any, Any],
    read: Callable[[], Coroutine[Any, Any, None]],
    write: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Run both halves of a stream until the reading half ends; then nothing of it is left.

    Raises the LetterlockError of the stream's status.
    """
    lost: LetterlockError | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(_quiet(write))
            try:
                await read()
            except grpc.aio.AioRpcError as error:
                lost = from_rpc(error)
            except LetterlockError as error:
                lost = error
            except asyncio.CancelledError:
                lost = _cut_off()
            finally:
                writer.cancel()
    finally:
        call.cancel()
    if lost is not None:
        raise lost


async def opening_answer(call: grpc.aio.StreamStreamCall[Any, Any], opening: object) -> Any:
    """Write the opening frame; the `opened` of the frame that answers it.

    Raises the LetterlockError of the stream's status, ServerError where another frame or none
    comes first; the call is cancelled on any failure.
    """
    try:
        with contextlib.suppress(*_STREAM_ENDED):  # reading tells why
            await call.write(opening)
        frame: Any = await call.read()
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from None
    except asyncio.CancelledError:
        call.cancel()
        raise _cut_off() from None
    if frame is grpc.aio.EOF or not frame.HasField("opened"):
        call.cancel()
        raise ServerError("the stream did not begin with its opening answer")
    return frame.opened


def _cut_off() -> LetterlockError:
    # gRPC raises CancelledError for a call it has cancelled itself, too: only a cancelled task
    # may go on being cancelled.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return Unavailable("the stream was cut off")


async def _quiet(write: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await write()
    except _STREAM_ENDED:
        return
