"""Calls denied for want of a good credential or of a right: counted, and told to the operator.

    first denial ──▶ warning ──a minute──▶ any more? ──yes──▶ one warning with their count ──▶ …
                                              └──no──▶ the next one is told at once

So guessing, and a stale token in a backend, are seen, and nobody can fill the log by guessing.
Knows no token, caller or address, and keeps two numbers of each kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from letterlockd.errors import Forbidden, Unauthenticated
from letterlockd.model.counting import counted
from letterlockd.rpc.faults import unwrap

__all__ = ["Counters", "Denials"]

_log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 60
"""Between two warnings of a kind. Shorter lets a guesser fill the log; longer hides him."""

_Later = Callable[[float, Callable[[], None]], object]


@dataclass(slots=True)
class Counters:
    """Read by telemetry; written on the loop only."""

    unauthenticated: int = counted(
        "Calls refused or ended because their credential is missing, wrong or revoked."
    )
    forbidden: int = counted(
        "Calls refused because a good credential, or a verification code, does not reach so far."
    )


class Denials:
    """Counts what a server denies, and warns at most once a minute of each kind.

    `later` has a function called after so many seconds: the running loop's `call_later`.
    """

    def __init__(self, later: _Later | None = None) -> None:
        self.counters = Counters()
        self._unauthenticated = _Warning("unauthenticated", later or _on_the_loop)
        self._forbidden = _Warning("forbidden", later or _on_the_loop)

    def note(self, method: str, error: Exception) -> None:
        """A call of `method` failed with `error`; any but a denial is passed over."""
        match unwrap(error):
            case Unauthenticated():
                self.counters.unauthenticated += 1
                self._unauthenticated.add(method)
            case Forbidden():
                self.counters.forbidden += 1
                self._forbidden.add(method)


class _Warning:
    """One kind of warning; `_pausing` while a minute since the last is not over."""

    def __init__(self, event: str, later: _Later) -> None:
        self._event = event
        self._later = later
        self._untold = 0
        self._method = ""
        self._pausing = False

    def add(self, method: str) -> None:
        self._untold += 1
        self._method = method
        if not self._pausing:
            self._tell()

    def _tell(self) -> None:
        self._pausing = self._untold > 0
        if self._pausing:
            _log.warning(self._event, count=self._untold, latest=self._method)
            self._untold = 0
            self._later(_PAUSE_SECONDS, self._tell)


def _on_the_loop(seconds: float, call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(seconds, call)
