"""Budgets that stay: ratios that hold on any machine, and this machine's last tagged figures.

Ratios of the short workloads (to the bare primitives, to the official client, to the best durable
peer) are held against `budgets.json`, which `python -m bench check --keep` writes, apart for the
ratchet's compiled and portable primitives. Speed and cost of a message are held against the last
tag, measured in the same run. A loss of more than 15 % fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tripleratchet.primitives import PRIMITIVES

from bench import measure
from bench.compare import compare, last_tag
from bench.row import Sizes
from bench.run import number, run
from bench.workloads import ALL

MOST_LOSS = 0.15
BUDGETS = Path(__file__).resolve().parent / "budgets.json"
SHORT = Sizes(rounds=5, messages=6_400, mailboxes=200)
OF_RATIOS = ("crypto", "peers")
AGAINST_TAG = "campaign-known"
_TAG_OPTIONS = ("--messages", "6000", "--users", "60")
_TAG_ROUNDS = 3
RATIO = "times"
"""The unit of figures that do not depend on the machine."""


@dataclass(frozen=True)
class Held:
    """A figure beside what it is held against."""

    name: str
    now: float
    before: float
    smaller: bool = False

    @property
    def loss(self) -> float:
        """The share that is gone."""
        return measure.loss(self.now, self.before, smaller=self.smaller)

    @property
    def fails(self) -> bool:
        """Whether more is gone than may be."""
        return self.loss > MOST_LOSS


def ratios() -> dict[str, tuple[float, bool]]:
    """The ratios of the short workloads, measured now, by name; and whether less is better."""
    found = {}
    for name in OF_RATIOS:
        rows = run(name, SHORT, as_json=False, keep=False)
        for figure in ALL[name].figures:
            if figure.unit == RATIO and (samples := figure.read(rows)):
                median = measure.Spread.of(samples).median
                found[f"{name}: {figure.name}"] = (round(median, 3), figure.smaller)
    return found


def against_budgets(
    now: Mapping[str, tuple[float, bool]], budgets: Mapping[str, float]
) -> list[Held]:
    """What was measured and has a budget."""
    return [
        Held(name, value, budgets[name], smaller)
        for name, (value, smaller) in now.items()
        if name in budgets
    ]


def against_tag(tag: str) -> list[Held]:
    """This tree beside the last tag, in turns."""
    lines = compare(tag, AGAINST_TAG, _TAG_OPTIONS, rounds=_TAG_ROUNDS)
    return [
        Held(f"{AGAINST_TAG}: {line['figure']}, to {tag}", line["times better"], 1.0)
        for line in lines
    ]


def check(*, keep: bool) -> int:
    """Measure and hold; 1 when a figure lost too much. With `keep`, write the budgets instead."""
    now = ratios()
    budgets = json.loads(BUDGETS.read_text())
    if keep:
        budgets[PRIMITIVES] = {name: value for name, (value, _) in now.items()}
        BUDGETS.write_text(json.dumps(budgets, indent=2, ensure_ascii=False) + "\n")
        print(f"{len(now)} budgets for {PRIMITIVES} primitives written to {BUDGETS.name}")
        return 0
    held = against_budgets(now, budgets[PRIMITIVES])
    tag = last_tag()
    if tag is None:
        print("no tag yet: nothing to hold speed against", file=sys.stderr)
    else:
        held += against_tag(tag)
    Console(width=measure.WIDTH).print(measure.grid("Budgets", [_shown(one) for one in held]))
    return int(any(one.fails for one in held))


def _shown(one: Held) -> dict[str, str]:
    return {
        "figure": one.name,
        "now": number(one.now),
        "held against": number(one.before),
        "loss": f"{one.loss:+.1%}",
        "": "FAILS" if one.fails else "ok",
    }
