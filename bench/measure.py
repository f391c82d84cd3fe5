"""What all benchmarks share: medians with their spread, conditions, JSON lines, tables.

Knows nothing of what is measured.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tripleratchet.primitives import PRIMITIVES

RESULTS = Path(__file__).resolve().parent / "results"
"""Where lines and plots go; git ignores it."""

WIDTH = 118
_LIBRARIES = ("grpcio", "protobuf", "cryptography", "lmdb", "uvloop")
_SYNCS = 40


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and how far they lie apart."""

    median: float
    p10: float
    p90: float
    rounds: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], 1)
        deciles = statistics.quantiles(samples, n=10, method="inclusive")
        return cls(statistics.median(samples), deciles[0], deciles[-1], len(samples))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the samples (ascending) do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round, so that what the machine did to both cancels out; the shorter one ends it."""
    return [one / other for one, other in zip(ours, theirs, strict=False)]


def loss(now: float, before: float, *, smaller: bool = False) -> float:
    """The share of a figure that is gone: 0.2 where four fifths are left; below 0 is a gain.
    `smaller`: whether less of it is better."""
    return 1 - (before / now if smaller else now / before)


def conditions(**more: object) -> dict[str, Any]:
    """What every figure of a run depends on."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "primitives": PRIMITIVES,
        **{name: version(name) for name in _LIBRARIES},
        **more,
    }


def sync_ms(folder: Path | None) -> float:
    """Milliseconds to make a page durable, the median of some. `folder` None: the temporary one."""
    taken = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(_SYNCS):
            began = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(4096), 0)
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1e3)
    return round(statistics.median(taken), 2)


def json_lines(bench: str, rows: Iterable[Mapping[str, object]]) -> Iterable[str]:
    """One line a row, with the name of the benchmark."""
    return (json.dumps({"bench": bench, **row}) for row in rows)


def keep(bench: str, rows: Iterable[Mapping[str, object]]) -> Path:
    """Write the lines into the folder of results; the file."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{bench}.jsonl"
    path.write_text("".join(line + "\n" for line in json_lines(bench, rows)))
    return path


def grid(title: str, rows: Sequence[Mapping[str, object]]) -> Table:
    """A table whose columns are the keys of the first row."""
    made = Table(title=title)
    for name in rows[0]:
        made.add_column(name, justify="right")
    for row in rows:
        made.add_row(*map(str, row.values()))
    return made


def show(bench: str, title: str, rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print rows: JSON lines for programs, or a table for people."""
    if as_json:
        sys.stdout.writelines(line + "\n" for line in json_lines(bench, rows))
    else:
        Console(width=WIDTH).print(grid(title, rows))
