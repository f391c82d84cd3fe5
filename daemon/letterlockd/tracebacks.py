"""Where an exception came from, as text that is safe to log: file, line and function.

Never the exception's message, its arguments or any local value: they may hold content.
"""

from __future__ import annotations

import traceback
from pathlib import PurePath

FRAMES = 12
"""How many of the innermost frames are told."""


def frames_of(error: BaseException) -> list[str]:
    """The innermost frames of `error`, outermost first, as "file.py:line function". For a group,
    the frames of its first exception follow."""
    told = [
        f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)[-FRAMES:]
    ]
    if isinstance(error, BaseExceptionGroup):
        told += [type(error.exceptions[0]).__name__, *frames_of(error.exceptions[0])]
    return told
