"""When to try again: a pure decision; the caller sleeps.

Full jitter over an exponential bound, so that a thousand clients cut off together do not come back
together. Knows neither gRPC nor a clock; randomness is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from letterlock.errors import Busy, LetterlockError, ServerError, Unavailable

SERVER_ERROR_ATTEMPTS = 5
"""How often a bug on the other side is met in a row before it is told: a process that is being
restarted answers so for a moment, a real bug for ever."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait before a further attempt; all times in seconds.

    `attempts` counts failures in a row (None: no end). A retry time named by the other side is
    the least that is waited.
    """

    first: float = 0.1
    most: float = 10.0
    factor: float = 2.0
    attempts: int | None = None

    def bound(self, failures: int) -> float:
        """The longest wait after so many failures in a row (at least 1)."""
        exponent = min(failures - 1, 32)
        return min(self.most, self.first * self.factor**exponent)


class Backoff:
    """Counts the failures of one connection or call, and says how long to wait."""

    def __init__(self, policy: RetryPolicy, random: Callable[[], float]) -> None:
        """`random` gives a number from 0 to 1."""
        self._policy = policy
        self._random = random
        self._failures = 0

    @property
    def failures(self) -> int:
        """Failures in a row; 0 after progress."""
        return self._failures

    def succeeded(self) -> None:
        """There was progress: the next failure is a first one."""
        self._failures = 0

    def after(self, error: LetterlockError) -> float:
        """Seconds to wait before trying again. Raises `error` where another try is no use."""
        self._failures += 1
        if not _worth_repeating(error) or self._exhausted(error):
            raise error
        wait = self._random() * self._policy.bound(self._failures)
        return wait if error.retry_after is None else error.retry_after + wait

    def _exhausted(self, error: LetterlockError) -> bool:
        most = self._policy.attempts
        if isinstance(error, ServerError):
            most = SERVER_ERROR_ATTEMPTS if most is None else min(most, SERVER_ERROR_ATTEMPTS)
        return most is not None and self._failures >= most


def _worth_repeating(error: LetterlockError) -> bool:
    return isinstance(error, Unavailable | Busy | ServerError)
