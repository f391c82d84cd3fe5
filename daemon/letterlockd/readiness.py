"""How a role process tells who started it that it serves: one JSON line on an inherited pipe.

    {"role": "relay", "address": "127.0.0.1:7444"}

The address is the one that is listened on, also when the settings leave the port open (port 0).
Imports nothing heavy: the supervisor reads what the role writes.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

__all__ = ["Ready", "announce", "parse"]


@dataclass(frozen=True, slots=True)
class Ready:
    """A role that serves, and where."""

    role: str
    address: str


def announce(ready: Ready, fd: int | None) -> None:
    """Write the line and close the pipe. Without one (`fd` None) nobody asked. A reader that is
    gone is no error: it will be noticed otherwise."""
    if fd is None:
        return
    try:
        os.write(fd, json.dumps(asdict(ready)).encode() + b"\n")  # shorter than a pipe's buffer
    except BrokenPipeError:
        pass
    finally:
        os.close(fd)


def parse(line: bytes) -> Ready | None:
    """The line again; None when the process ended without a whole one."""
    if not line.endswith(b"\n"):
        return None
    return Ready(**json.loads(line))
