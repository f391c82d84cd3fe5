"""Credit: how much may be out at a time, and when to pause and resume.

          Took, used >= pause_at
    OPEN ────────────────────────▶ FULL
      ◀────────────────────────────
          Gave, used <= resume_at

Two levels, so that a stream at its bound does not switch with every single unit. Counts only;
knows neither messages nor events. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace

from letterlockd.errors import BrokenInvariant
from letterlockd.streams.rules import find

__all__ = ["Action", "Credit", "CreditState", "Gave", "Pause", "Resume", "Took", "step"]


class CreditState(enum.Enum):
    """Whether more may be taken."""

    OPEN = "open"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Took:
    """`count` more are out."""

    count: int


@dataclass(frozen=True, slots=True)
class Gave:
    """`count` came back."""

    count: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Take no more."""


@dataclass(frozen=True, slots=True)
class Resume:
    """More may be taken."""


Action = Pause | Resume


@dataclass(frozen=True, slots=True)
class Credit:
    """Never more than `limit` out; pauses at `pause_at`, resumes at `resume_at` (0 <= resume_at <
    pause_at <= limit)."""

    limit: int
    pause_at: int
    resume_at: int
    used: int = 0
    state: CreditState = CreditState.OPEN

    @classmethod
    def window(cls, limit: int) -> Credit:
        """A window without slack: full at `limit`, open again at the first unit given back, since
        a caller may hold back acknowledgements of all but one."""
        return cls(limit, limit, limit - 1)

    @property
    def room(self) -> int:
        """How many may be taken now; 0 while full."""
        return self.limit - self.used if self.state is CreditState.OPEN else 0


Stepped = tuple[Credit, tuple[Action, ...]]


def step(credit: Credit, event: Took | Gave) -> Stepped:
    """The next credit and what to do. Raises `BrokenInvariant` for what no table entry allows."""
    return find(TRANSITIONS, credit.state, event)(credit, event)


def _took(credit: Credit, event: Took) -> Stepped:
    used = credit.used + event.count
    if event.count < 0 or used > credit.limit:
        raise BrokenInvariant("more taken than the credit allows")
    if used >= credit.pause_at:
        return replace(credit, used=used, state=CreditState.FULL), (Pause(),)
    return replace(credit, used=used), ()


def _gave(credit: Credit, event: Gave) -> Stepped:
    used = credit.used - event.count
    if event.count < 0 or used < 0:
        raise BrokenInvariant("more given back than was taken")
    if credit.state is CreditState.FULL and used <= credit.resume_at:
        return replace(credit, used=used, state=CreditState.OPEN), (Resume(),)
    return replace(credit, used=used), ()


TRANSITIONS: dict[tuple[object, type], Callable[..., Stepped]] = {
    (CreditState.OPEN, Took): _took,
    (CreditState.OPEN, Gave): _gave,
    (CreditState.FULL, Gave): _gave,
}
