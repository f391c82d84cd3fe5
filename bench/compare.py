"""Two commits on one workload in one run, in turns: rounds of a machine that changes its mind fall
on both.

Each commit is measured by its own harness, from a git worktree in a temporary folder, since some
workloads use the daemon's own rooms; the figures are read here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Spread, loss, ratio
from bench.row import Row
from bench.workloads import ALL, Figure

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("daemon", "clients/python")


def compare(revision: str, name: str, options: Sequence[str], *, rounds: int) -> list[Row]:
    """One line for each figure: medians of both, and how many times better this tree is."""
    here: list[list[Row]] = []
    there: list[list[Row]] = []
    with worktree(revision) as other:
        for round_ in range(rounds):
            turn = [(ROOT, here), (other, there)]
            for sources, rows in turn if round_ % 2 == 0 else reversed(turn):
                rows.append(_measured(sources, name, options))
    return [
        line for figure in ALL[name].figures if (line := _line(figure, here, there)) is not None
    ]


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """The files of a commit. Ends the program when there is no such commit."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "tree"
        added = _git("worktree", "add", "--detach", str(place), revision)
        if added.returncode:
            sys.exit(f"no worktree of {revision}: {added.stderr.strip()}")
        try:
            if not (place / "bench" / "workloads.py").exists():
                sys.exit(f"{revision} is older than the harness: it has no named workloads")
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def last_tag() -> str | None:
    """The newest tag below this commit."""
    found = _git("describe", "--tags", "--abbrev=0")
    return found.stdout.strip() if found.returncode == 0 else None


def _measured(sources: Path, name: str, options: Sequence[str]) -> list[Row]:
    """The rows of one round, in a process of its own."""
    paths = [str(sources / source) for source in SOURCES]
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, "--json", *options, "--rounds", "1"],
        cwd=sources,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{name} with the sources of {sources}: {done.stderr.strip()[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _line(figure: Figure, here: list[list[Row]], there: list[list[Row]]) -> Row | None:
    now = [Spread.of(samples).median for rows in here if (samples := figure.read(rows))]
    before = [Spread.of(samples).median for rows in there if (samples := figure.read(rows))]
    if not now or not before:
        return None
    better = ratio(before, now) if figure.smaller else ratio(now, before)
    spread = Spread.of(better)
    return {
        "figure": figure.name,
        "unit": figure.unit,
        "here": round(Spread.of(now).median, 3),
        "there": round(Spread.of(before).median, 3),
        "times better": round(spread.median, 3),
        "10 % to 90 %": f"{spread.p10:.3f} to {spread.p90:.3f}",
        "loss": round(loss(spread.median, 1.0), 3),
        "rounds": spread.rounds,
    }


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
    )
