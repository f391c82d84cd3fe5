"""How long to wait before connecting again: doubling, with full jitter, up to a ceiling.

Jitter, because all gateways of a relay lose it in the same moment. Pure: randomness is handed in.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]

_FIRST_SECONDS = 0.1
_CEILING_SECONDS = 15.0
_FLOOR_PART = 0.2
"""At least this part of the ceiling is waited: without it jitter may mean a busy loop."""


class Backoff:
    """Waits of one connection. `fraction` gives uniform numbers in [0, 1)."""

    def __init__(self, fraction: Callable[[], float]) -> None:
        self._fraction = fraction
        self._failures = 0

    def succeeded(self) -> None:
        """The connection was of use: the next wait is short again."""
        self._failures = 0

    def next_seconds(self) -> float:
        """The wait after one more failure."""
        ceiling = min(_CEILING_SECONDS, _FIRST_SECONDS * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return ceiling * (_FLOOR_PART + (1 - _FLOOR_PART) * self._fraction())
