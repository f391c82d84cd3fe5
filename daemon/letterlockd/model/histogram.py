"""How long things took, by size of bucket: what a Prometheus histogram is read from."""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["LONG_BUCKETS", "Histogram"]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper ends in seconds: from a local commit to a bound of what may be called moving."""

LONG_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0, 604_800.0)
"""For what waits for people: a user may be offline for days."""


class Histogram:
    """Counts of durations in seconds. Written on the loop, read by telemetry from another thread,
    which may miss the newest."""

    __slots__ = ("_ends", "counts", "total")

    def __init__(self, ends: tuple[float, ...] = _BUCKETS) -> None:
        self._ends = ends
        self.counts = [0] * (len(ends) + 1)
        self.total = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """So many things took this long. A clock that was set back makes a duration of 0."""
        seconds = max(seconds, 0.0)
        self.counts[bisect_left(self._ends, seconds)] += count
        self.total += seconds * count

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus wants them: the upper end as text, and how many took at most that long."""
        counts, sum_, told = list(self.counts), 0, []
        for end, count in zip((*map(str, self._ends), "+Inf"), counts, strict=True):
            sum_ += count
            told.append((end, float(sum_)))
        return told
