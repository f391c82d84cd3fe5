"""The benchmark harness: named workloads, each one command.

    python -m bench                       what `make bench` prints, some five minutes
    python -m bench WORKLOAD [--json]     one of them; --help names all and their sizes
    python -m bench report [WORKLOAD...]  measures them, or all, and draws one page
    python -m bench compare REV           this tree and a commit, in turns
    python -m bench check                 fails when a budget is lost

Lines of a workload go to bench/results/; with --json they are printed instead.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import measure, report
from bench.check import check
from bench.compare import compare
from bench.row import Sizes
from bench.run import as_shown, run
from bench.workloads import ALL, RATES, summary

BRIEF = ("crypto", "campaign-known", "inbound", "latency", "devices")
_BRIEF_SIZES = Sizes(rounds=3, rates=(200, 500), devices=2_000)
_SIZES = {field.name: field for field in fields(Sizes)}
_SEVERAL = ("rates", "growth")
_SPAWN = multiprocessing.get_context("spawn")


def brief(sizes: Sizes, *, as_json: bool) -> None:
    """What `make bench` prints: the ratchet beside the official client, and the whole way."""
    lines = []
    for name in BRIEF:
        lines += summary(name, run(name, sizes, as_json=as_json))
    if not as_json:
        shown = [as_shown(line) for line in lines]
        Console(width=measure.WIDTH).print(measure.grid("Figures beside their goals", shown))


def compared(arguments: argparse.Namespace, sizes: argparse.Namespace) -> None:
    """Print what a comparison found."""
    options = [
        text
        for name, value in vars(sizes).items()
        if value is not None and name != "rounds"
        for text in (
            f"--{name.replace('_', '-')}",
            *map(str, value if name in _SEVERAL else [value]),
        )
    ]
    lines = compare(arguments.revision, arguments.workload, options, rounds=sizes.rounds or 5)
    if arguments.json:
        print("\n".join(json.dumps(line) for line in lines))
    else:
        title = f"{arguments.workload}: this tree and {arguments.revision}, in turns"
        Console(width=measure.WIDTH).print(measure.grid(title, lines))


def reported(names: Sequence[str], sizes: Sizes, *, as_json: bool) -> None:
    """Measure workloads and draw the page. Each has a process of its own: what one leaves behind,
    threads of gRPC above all, is nothing to the next, and one that fails leaves the others."""
    failed = []
    for name in names:
        process = _SPAWN.Process(target=run, args=(name, sizes), kwargs={"as_json": as_json})
        process.start()
        process.join()
        if process.exitcode:
            failed.append(name)
    print(f"The page is {report.write()}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; of these the page shows what was kept before")


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _with_sizes(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    group = parser.add_argument_group("sizes")
    for name in _SIZES:
        several: dict[str, Any] = {"nargs": "+"} if name in _SEVERAL else {}
        kind = Path if name == "folder" else _at_least_one
        if name == "rates":
            several["choices"] = RATES
        shown = getattr(Sizes(), name)
        group.add_argument(
            f"--{name.replace('_', '-')}", type=kind, help=f"[{shown}]", default=None, **several
        )
    parser.add_argument("--json", action="store_true", help="JSON lines instead of tables")
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = _with_sizes(
        argparse.ArgumentParser(
            prog="python -m bench",
            description=__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    commands = parser.add_subparsers(dest="command", metavar="WORKLOAD")
    for name, workload in ALL.items():
        _with_sizes(commands.add_parser(name, help=workload.what))
    made = _with_sizes(commands.add_parser("report", help="measure and draw one page"))
    made.add_argument("workloads", nargs="*", help="[all]")
    made.add_argument("--kept", action="store_true", help="draw what was measured last")
    made = _with_sizes(commands.add_parser("compare", help="this tree and a commit, in turns"))
    made.add_argument("revision")
    made.add_argument("workload", nargs="?", choices=list(ALL), default="campaign-known")
    made = commands.add_parser("check", help="fail when more than 15 %% of a budget is lost")
    made.add_argument("--keep", action="store_true", help="measure and write the budgets")
    return parser


def main() -> None:
    """Command line."""
    arguments = _parser().parse_args()
    if arguments.command == "check":
        sys.exit(check(keep=arguments.keep))
    given: dict[str, Any] = {
        name: tuple(value) if name in _SEVERAL else value
        for name in _SIZES
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.command is None:
        brief(replace(_BRIEF_SIZES, **given), as_json=arguments.json)
    elif arguments.command == "compare":
        compared(arguments, argparse.Namespace(**{"rounds": None, **given}))
    elif arguments.command == "report":
        chosen = arguments.workloads or list(ALL)
        if unknown := set(chosen) - set(ALL):
            sys.exit(f"no such workload: {', '.join(sorted(unknown))}")
        sizes = replace(Sizes(), **given)
        reported(() if arguments.kept else chosen, sizes, as_json=arguments.json)
    else:
        sizes = replace(Sizes(), **given)
        run(arguments.command, sizes, as_json=arguments.json, keep=not arguments.json)


if __name__ == "__main__":
    main()
