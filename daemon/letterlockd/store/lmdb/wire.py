"""Frames between the front and its committer: be32 length, then one marshalled plain value.

Both ends are the same interpreter and program, started together, and nothing of this is ever on
disk: so `marshal`, the fastest encoding at hand, is safe here and only here.

    front → committer   first the fields of `Start`, then [(request id, kind, body), …]
    committer → front   first ("ready",), then [(request id, status, body), …]
                        or ("fault", reason, text), after which the committer ends

    kind      body                                        body of a DONE answer
    COMMIT    [(checks, writes), …]                       [None or (table number, key, version), …]
              check (table number, key, version)
              write (number, key, value, expiry) = put, (number, key) = delete
    SWEEP     (now ms, limit, [kept table number, …])     ({table number: count}, more)
    RESERVE   (name, count)                               first number
"""

from __future__ import annotations

import marshal
import struct
from typing import Any, NamedTuple

__all__ = ["COMMIT", "DONE", "FULL", "RESERVE", "SWEEP", "Start", "Unpacker", "pack"]

COMMIT = 0
SWEEP = 1
RESERVE = 2

DONE = 0
FULL = 1

_LENGTH = struct.Struct(">I")
_MARSHAL_VERSION = 2  # later ones track references, which costs time and finds none here


class Start(NamedTuple):
    """What the front tells its committer first: plain values only."""

    folder: str
    kind: str
    schema_version: int
    tables: list[tuple[int, str, bool]]
    migrations: list[tuple[int, str]]
    map_size: int
    max_size_bytes: int | None


def pack(message: Any) -> bytes:
    """One frame of `message`: None, int, str, bytes, and tuples, lists and dicts of those."""
    body = marshal.dumps(message, _MARSHAL_VERSION)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Takes bytes as they come and gives back whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are complete now, in order; the rest is kept."""
        buffer = self._buffer
        buffer += data
        messages, start = [], 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            messages.append(marshal.loads(memoryview(buffer)[start + _LENGTH.size : end]))  # noqa: S302
            start = end
        if start:
            del buffer[:start]
        return messages
