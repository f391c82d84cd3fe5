"""Whether messages move through one part of their way: a pure machine, fed with times and counts.

    unproven ──something passed──▶ proven ──nothing passed for `bound`, or refused──▶ unproven

A *leg* is a part of a message's way that something else than this loop has to walk, or that a bug
could hold up: a store's writer, a ratchet worker, the relay, a queue. What comes out proves it for
`bound_s` seconds. While nothing goes in, a probe does: a leg that nobody uses is not healthy only
because nobody has noticed. So no leg can stop silently. Knows no I/O and reads no clock.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Leg", "Reading"]

_PROBES_PER_BOUND = 2
"""A proof is renewed twice before it lapses, so that one slow probe is no alarm."""


class Reading(NamedTuple):
    """What is true of a leg now. `waiting`: went in and has not come out; `passed`: came out since
    the start; `refused`: was turned away since the start, for lack of space."""

    waiting: int
    passed: int
    refused: int = 0


class Leg:
    """One leg. `probed`: whether something can be sent through it for the sake of proof; one that
    has no probe and nothing to do is taken for proven."""

    def __init__(self, name: str, bound_s: float, *, probed: bool) -> None:
        self.name = name
        self.waiting = 0
        self._bound_s = bound_s
        self._probed = probed
        self._last: Reading | None = None
        self._began: float | None = None
        self._proven_at: float | None = None
        self._refused_at: float | None = None

    def look(self, now: float, reading: Reading) -> bool:
        """Take in what is true now. Returns whether a probe is due."""
        last, self._last = self._last, reading
        self.waiting = reading.waiting
        if self._began is None:
            self._began = now
        if reading.refused != (last.refused if last else 0):
            self._refused_at = now
        idle = not self._probed and reading.waiting == 0
        if idle or reading.passed != (last.passed if last else 0):
            self._proven_at = now
        return (
            self._probed
            and reading.waiting == 0
            and (self._proven_at is None or self.age_s(now) >= self._bound_s / _PROBES_PER_BOUND)
        )

    def age_s(self, now: float) -> float:
        """Since the last proof; before the first one, since the first look."""
        since = self._began if self._proven_at is None else self._proven_at
        return 0.0 if since is None else max(0.0, now - since)

    def proven(self, now: float) -> bool:
        """Whether messages move here, as far as anybody can know now."""
        return (
            self._proven_at is not None
            and now - self._proven_at < self._bound_s
            and (self._refused_at is None or now - self._refused_at >= self._bound_s)
        )
