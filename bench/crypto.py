"""The ratchet against the official client: the same work, in turns, in one run.

    python -m bench crypto [--json] [--rounds N]

"Batch" is how a worker does it: the record opened once for 64 messages; the official interface has
no counterpart, so it is set beside the single operation. In the set-up rows both ends of the
official conversation are official. "Bare primitives" are the library calls that any message needs.
Rounds of both sides alternate after a warm-up; medians are given with the 10th and 90th percentile.
On a machine that others use, compare processor time.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from bench.crypto_sides import PRIMITIVES, Official, Ours, Side, Taken
from bench.measure import Spread, ratio
from bench.row import Row, Sizes
from tests.harness.node import install_official_client

WARM_UP_ROUNDS = 2
COUNTS = {
    "encrypt": 640,
    "decrypt": 640,
    "ping-pong": 320,
    "set-up, first ciphertext": 60,
    "set-up, first decrypt": 60,
    "encrypt, batch of 64": 640,
    "decrypt, batch of 64": 640,
    PRIMITIVES: 640,
}
GOALS = {"encrypt": 3, "decrypt": 3, "ping-pong": 2, "set-up, first ciphertext": 1.5}
"""How many times faster than the official client."""

BATCH_GOAL = 1.2
"""Of what the bare primitives take, for a message in a batch (25 µs where they take 21)."""

COUNTERPARTS = {"encrypt, batch of 64": "encrypt", "decrypt, batch of 64": "decrypt"}


@dataclass(frozen=True)
class Result:
    """One implementation on one workload, in microseconds for one operation."""

    workload: str
    implementation: str
    wall_us: Sequence[float]
    """By round; the rounds of both sides alternate, so that those of one place belong together."""
    cpu_us: Sequence[float]


def measure(sides: list[Side], rounds: int) -> Iterator[Result]:
    """All workloads, rounds of the sides alternating."""
    for workload, count in COUNTS.items():
        samples: dict[str, list[Taken]] = {side.name: [] for side in sides}
        for number in range(WARM_UP_ROUNDS + rounds):
            for side in sides:
                taken = side.taken(workload, count)
                if taken is not None and number >= WARM_UP_ROUNDS:
                    samples[side.name].append(taken)
        for name, taken_samples in samples.items():
            if taken_samples:
                wall, cpu = zip(*taken_samples, strict=True)
                yield Result(workload, name, wall, cpu)


def times_less(results: Sequence[Result], workload: str) -> list[float]:
    """How many times the processor time of ours the official client takes, round by round; empty
    where it was not measured."""
    by_side = {(one.workload, one.implementation): one.cpu_us for one in results}
    named = COUNTERPARTS.get(workload, workload)
    official = [
        taken for (name, side), taken in by_side.items() if name == named and side != Ours.name
    ]
    return ratio(official[0], by_side[workload, Ours.name]) if official else []


def over_primitives(results: Sequence[Result], workload: str) -> list[float]:
    """How many times the processor time of a message's bare primitives ours takes, by round."""
    ours = {one.workload: one.cpu_us for one in results if one.implementation == Ours.name}
    return ratio(ours[workload], ours[PRIMITIVES])


def rows(results: Sequence[Result]) -> Iterator[Row]:
    """One row for each result; ratios have a value for each round."""
    for one in results:
        spread = Spread.of(one.wall_us)
        row: Row = {
            "operation": one.workload,
            "implementation": one.implementation,
            "median_us": round(spread.median, 2),
            "p10_us": round(spread.p10, 2),
            "p90_us": round(spread.p90, 2),
            "cpu_median_us": round(Spread.of(one.cpu_us).median, 2),
            "rounds": spread.rounds,
            "operations_per_round": COUNTS[one.workload],
        }
        if one.implementation == Ours.name:
            row["times_less_cpu"] = _rounded(times_less(results, one.workload))
            row["over_primitives"] = _rounded(over_primitives(results, one.workload))
        yield row


def _rounded(samples: Sequence[float]) -> list[float]:
    return [round(sample, 3) for sample in samples]


def run(rounds: int) -> list[Result]:
    """Measure both sides; ours alone, and a line about it, where the official one cannot run."""
    problem = install_official_client()
    if problem is not None:
        print(f"The official client is not measured: {problem}", file=sys.stderr)
    official = None if problem is not None else Official()
    try:
        sides: list[Side] = [Ours()] if official is None else [Ours(), official]
        return list(measure(sides, max(rounds, 2)))
    finally:
        if official is not None:
            official.close()


async def workload(sizes: Sizes) -> AsyncIterator[Row]:
    """The ratchet against the official client, and against the bare primitives of a message."""
    results = await asyncio.to_thread(run, sizes.rounds)
    for row in rows(results):
        yield row
