"""Frames on the pipe between pool and child: be32 length, be32 sequence number, body.

    child → pool    first sequence 0 with HELLO as body, then one answer for each question
    pool → child    questions with ascending sequence numbers from 1

An answer carries its question's number: a child that is out of step is found out at once.
Imported by both ends, so it knows neither asyncio nor the jobs.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

__all__ = ["HEADER", "HELLO", "MAX_BODY_BYTES", "BadFrame", "Unpacker", "read_frame", "write_frame"]

HEADER = struct.Struct(">II")

HELLO = b"letterlock worker 1"
"""Says that the child is up and speaks this framing."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Twice the largest job. A larger length is noise, and waiting for its end would take forever."""


class BadFrame(Exception):
    """The bytes are not what the other end would write."""


def read_frame(stream: BinaryIO) -> tuple[int, bytes] | None:
    """Block for one frame: sequence number and body; None when the stream has ended."""
    head = stream.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    length, sequence = HEADER.unpack(head)
    body = stream.read(length)
    return None if len(body) < length else (sequence, body)


def write_frame(stream: BinaryIO, sequence: int, body: bytes) -> None:
    """Write one frame and flush it."""
    stream.write(HEADER.pack(len(body), sequence))
    stream.write(body)
    stream.flush()


class Unpacker:
    """Takes bytes as they come and gives back whole frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are complete now, in order. Raises `BadFrame`."""
        buffer = self._buffer
        buffer += data
        frames, start = [], 0
        while len(buffer) - start >= HEADER.size:
            length, sequence = HEADER.unpack_from(buffer, start)
            if length > MAX_BODY_BYTES:
                raise BadFrame("length of a frame is past the limit")
            body = start + HEADER.size
            if len(buffer) < body + length:
                break
            start = body + length
            frames.append((sequence, bytes(memoryview(buffer)[body:start])))
        if start:
            del buffer[:start]
        return frames
