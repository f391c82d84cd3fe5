"""Main of the writer process: groups from stdin, one transaction each, answers to stdout.

    start ──open──▶ serving ◀──▶ group ──▶ commit ──▶ answer
                       │
                       ├── end of stdin: the front closed or died; finish, exit 0
                       └── LMDB or data fault: say it, exit 2; the daemon must restart

It decides nothing else: SIGINT and SIGTERM are ignored, because the front knows when the last
commit was asked for. Whatever the front sent while a transaction was being synced is waiting in
the pipe and becomes the next group.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import Any

import lmdb

from letterlockd import collector
from letterlockd.errors import LetterlockError
from letterlockd.store.lmdb.engine import Request
from letterlockd.store.lmdb.prepare import open_engine
from letterlockd.store.lmdb.wire import Start, Unpacker, pack

__all__ = ["main"]

_READ_BYTES = 1024 * 1024

_GROUP_BYTES = 8 * 1024 * 1024
"""What is read before a group begins. More would only add latency: one fsync is spread over
thousands of commits by then."""


class _Pipes:
    """Blocking frames over the two file descriptors that the front made."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._unpacker = Unpacker()
        self._poll = select.poll()
        self._poll.register(incoming, select.POLLIN)

    def receive(self) -> list[Any]:
        """All messages that are there, waiting for the first; empty at the end of the stream."""
        messages: list[Any] = []
        taken = 0
        while not messages or (taken < _GROUP_BYTES and self._poll.poll(0)):
            data = os.read(self._incoming, _READ_BYTES)
            if not data:
                break
            taken += len(data)
            messages += self._unpacker.feed(data)
        return messages

    def send(self, message: object) -> None:
        """Write one frame whole."""
        rest = memoryview(pack(message))
        while rest:
            rest = rest[os.write(self._outgoing, rest) :]


def main() -> int:
    """Serve one front until it closes its end. Returns the exit code."""
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    pipes = _Pipes(sys.stdin.fileno(), sys.stdout.fileno())
    try:
        return _serve(pipes)
    except BrokenPipeError:
        return 0
    except LetterlockError as fault:
        return _report(pipes, fault.reason, fault.message)
    except (lmdb.Error, OSError) as error:
        return _report(pipes, "STORAGE_UNAVAILABLE", str(error))


def _serve(pipes: _Pipes) -> int:
    started = pipes.receive()
    if not started:
        return 0
    engine = open_engine(Start(*started[0]))
    collector.calm()
    pipes.send(("ready",))
    while frames := pipes.receive():
        group: list[Request] = [request for frame in frames for request in frame]
        pipes.send(engine.run(group))
    return 0


def _report(pipes: _Pipes, reason: str, text: str) -> int:
    try:
        pipes.send(("fault", reason, text))
    except BrokenPipeError:
        return 0
    return 2


if __name__ == "__main__":
    sys.exit(main())
