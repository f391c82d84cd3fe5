"""Speed beside the goals: the ratchet against the official client, and the whole way.

python -m bench [--json]     some four minutes; lines and plots go to bench/results/
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import uvloop
from rich.console import Console

from bench import crypto, end_to_end, measure
from bench.business import LedgerError

CRYPTO_ROUNDS = 5


def ratchet_lines(results: Sequence[crypto.Result]) -> list[dict[str, Any]]:
    """The ratchet's figures as lines of the summary."""
    done, rows = list(results), []
    for workload, goal in crypto.GOALS.items():
        times = crypto.ratio(done, workload, cpu=True)
        shown = "not measured" if times is None else f"{times:.2f} times less CPU"
        reached = None if times is None else times >= goal
        rows.append((workload, shown, f"{goal} times less than the official client", reached))
    for workload in crypto.COUNTERPARTS:
        over = crypto.over_primitives(done, workload)
        goal_text = f"{crypto.BATCH_GOAL} times the bare primitives"
        rows.append((workload, f"{over:.2f} times", goal_text, over <= crypto.BATCH_GOAL))
    return [
        {
            "workload": workload,
            "median": shown,
            "10 % to 90 %": "",
            "goal": goal,
            "reached": {None: "", True: "yes", False: "no"}[reached],
        }
        for workload, shown, goal, reached in rows
    ]


def main() -> None:
    """Command line."""
    parser = end_to_end.options(argparse.ArgumentParser(description="Speed beside the goals."))
    parser.add_argument("--json", action="store_true", help="JSON lines instead of tables")
    parser.set_defaults(rounds=3)
    arguments = parser.parse_args()
    console = Console(width=measure.WIDTH, stderr=arguments.json)
    console.print("The ratchet, beside the official client ...")
    results = crypto.run(CRYPTO_ROUNDS)
    measure.RESULTS.mkdir(parents=True, exist_ok=True)
    lines = list(crypto.json_lines(results))
    (measure.RESULTS / "crypto.jsonl").write_text("".join(line + "\n" for line in lines))
    if arguments.json:
        print("\n".join(lines))
    else:
        console.print(crypto.table(results))
    console.print("The whole way, through the real daemon ...")
    try:
        rows = uvloop.run(end_to_end.run(arguments))
    except LedgerError as error:
        sys.exit(f"the ledger does not balance: {error}")
    summary = [*ratchet_lines(results), *end_to_end.summary(rows)]
    if arguments.json:
        print("\n".join(json.dumps({"bench": "summary", **line}) for line in summary))
    else:
        console.print(measure.grid("Goals", summary))
        console.print(f"Lines and plots are in {measure.RESULTS.name}/ below bench/.")


if __name__ == "__main__":
    main()
