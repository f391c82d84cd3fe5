"""Token buckets, in memory only: a restart fills them, which no bound of safety depends on.

Pure: time is an argument (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from letterlockd.relay.bounded import RecentlyUsed
from letterlockd.relay.settings import Rate

__all__ = ["Bucket", "RateLimiter"]


@dataclass(slots=True)
class Bucket:
    """One bucket: what was left at a time."""

    left: float
    at: float

    def take(self, rate: Rate, now: float) -> int:
        """Take one token: 0, or the milliseconds until there is one (then none is taken)."""
        left = min(rate.burst, self.left + (now - self.at) * rate.per_second)
        self.at = now
        if left >= 1:
            self.left = left - 1
            return 0
        self.left = left
        return max(1, int((1 - left) / rate.per_second * 1000))


class RateLimiter:
    """A bucket for each key. Only the most recently used ones are remembered: a key that comes
    back after so many others finds its bucket full."""

    def __init__(self, cached: int) -> None:
        self._buckets: RecentlyUsed[Hashable, Bucket] = RecentlyUsed(cached)

    def take(self, key: Hashable, rate: Rate, now: float) -> int:
        """As `Bucket.take`, for the bucket of `key`."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = Bucket(rate.burst, now)
            self._buckets.put(key, bucket)
        return bucket.take(rate, now)
