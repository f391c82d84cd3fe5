"""How long things took, by size of bucket: what a Prometheus histogram is read from."""

from __future__ import annotations

import threading
from bisect import bisect_right
from itertools import pairwise

__all__ = ["LONG_BUCKETS", "Histogram"]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper ends in seconds: from a local commit to a bound of what may be called moving."""

LONG_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0, 604_800.0)
"""For what waits for people: a user may be offline for days."""

_MAX_FRESH = 512


class Histogram:
    """Counts of durations in seconds. Written on the loop, on every message's way: so a duration is
    only put down there, and counted with others or when somebody asks, in whatever thread."""

    __slots__ = ("_counts", "_ends", "_fresh", "_lock", "_total")

    def __init__(self, ends: tuple[float, ...] = _BUCKETS) -> None:
        self._ends = ends
        self._counts = [0] * (len(ends) + 1)
        self._total = 0.0
        self._fresh: list[float] = []
        self._lock = threading.Lock()

    def observe(self, seconds: float) -> None:
        """Something took this long. A clock that was set back makes a duration of 0."""
        self._fresh.append(seconds)
        if len(self._fresh) >= _MAX_FRESH:
            with self._lock:
                self._count()

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """As Prometheus wants it: upper ends as text, each with how many took at most that long;
        and the sum of all durations."""
        with self._lock:
            self._count()
            counts, total = list(self._counts), self._total
        sum_, buckets = 0, []
        for end, count in zip((*map(str, self._ends), "+Inf"), counts, strict=True):
            sum_ += count
            buckets.append((end, float(sum_)))
        return buckets, total

    def _count(self) -> None:
        count = len(self._fresh)  # what the loop adds meanwhile stays
        fresh = sorted(max(seconds, 0.0) for seconds in self._fresh[:count])
        del self._fresh[:count]
        self._total += sum(fresh)
        places = [0, *(bisect_right(fresh, end) for end in self._ends), count]
        for index, (begin, end) in enumerate(pairwise(places)):
            self._counts[index] += end - begin
