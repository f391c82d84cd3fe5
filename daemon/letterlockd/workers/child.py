"""The child process: reads jobs from its input, executes them, writes answers; ends with its input.

`python -m letterlockd.workers.child`. Import-light: no asyncio, no grpc, no lmdb and nothing of
the parent's half. It writes nothing but answers, and on standard error the types and code
places of exceptions: values of a traceback could be content or keys.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO

from letterlockd import collector, failpoints
from letterlockd.workers.execute import execute
from letterlockd.workers.frames import HELLO, read_frame, write_frame

__all__ = ["describe", "main"]


def main() -> None:
    """Serve until the pool closes the pipe."""
    _prepare_process()
    questions, answers = _take_pipes()
    collector.calm()
    try:
        write_frame(answers, 0, HELLO)
        _serve(questions, answers)
    except BrokenPipeError:
        os._exit(0)  # the pool is gone; a normal exit would try to flush into the pipe again


def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    while (frame := read_frame(questions)) is not None:
        failpoints.hit("workers.job.received")
        sequence, job = frame
        result = execute(job, os.urandom, report)
        failpoints.hit("workers.job.answering")
        write_frame(answers, sequence, result)


def _prepare_process() -> None:
    """The parent decides when we end, not a signal to the group; keys stay out of core files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.excepthook = _on_exception
    sys.unraisablehook = _on_unraisable


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Our two pipes; from then on a stray print goes to standard error, not into an answer."""
    questions, answers = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return os.fdopen(questions, "rb"), os.fdopen(answers, "wb")


def report(error: BaseException) -> None:
    """Tell the parent's log where an exception came from."""
    sys.stderr.write(describe(error) + "\n")
    sys.stderr.flush()


def describe(error: BaseException) -> str:
    """Type and code places of an exception in one line, innermost last; no values, no message."""
    places = " > ".join(_places(error.__traceback__))
    return f"{type(error).__module__}.{type(error).__qualname__} at {places or 'unknown'}"


def _places(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield f"{os.path.basename(code.co_filename)}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next


def _on_exception(
    _type: type[BaseException], error: BaseException, _trace: TracebackType | None
) -> None:
    report(error)


def _on_unraisable(failure: sys.UnraisableHookArgs) -> None:
    if failure.exc_value is not None:
        report(failure.exc_value)


if __name__ == "__main__":
    main()
