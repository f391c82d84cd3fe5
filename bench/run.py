"""Runs one workload: conditions first, then a row for each round; prints and keeps them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import uvloop
from letterlockd.rpc.faults import leaves
from rich.console import Console

from bench import measure, workloads
from bench.ledger import LedgerError
from bench.row import LOAD, Row, Sizes

CONDITIONS = "conditions"
_NOT_PRINTED = ("latencies_ms",)


def run(name: str, sizes: Sizes, *, as_json: bool, keep: bool = True) -> list[Row]:
    """Measure a workload, print it, and keep its lines in the folder of results if asked; the rows.

    Ends the program when the ledger does not balance, and keeps nothing then.
    """
    try:
        rows = uvloop.run(_measured(name, sizes, as_json))
    except (LedgerError, ExceptionGroup) as error:
        if (cause := ledger_error(error)) is None:
            raise
        sys.exit(f"{name}: the ledger does not balance: {cause}")
    if keep:
        measure.keep(name, rows)
    if as_json:
        for line in workloads.summary(name, rows):
            _print_line(name, {"summary": line.pop("figure"), **line})
    else:
        show(name, rows)
    return rows


def kept(name: str) -> list[Row]:
    """The rows of the last run, or none."""
    path = measure.RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def show(name: str, rows: Sequence[Row]) -> None:
    """Tables for people."""
    console = Console(width=measure.WIDTH)
    console.print(f"[bold]{name}[/bold]: {workloads.ALL[name].what}")
    shown = {key: value for key, value in rows[0][CONDITIONS].items() if value is not None}
    console.print(", ".join(f"{key} {value}" for key, value in shown.items()), style="dim")
    if lines := workloads.summary(name, rows):
        console.print(measure.grid("", [as_shown(line) for line in lines]))
    if costs := cpu_by_role(rows):
        console.print(measure.grid("CPU µs a message, and most memory", costs))


def as_shown(line: Row) -> dict[str, str]:
    """A line of the summary as text."""
    goal = line["goal"]
    bound = "at most" if line["at most"] else "at least"
    return {
        "workload": line["workload"],
        "figure": line["figure"],
        "median": f"{number(line['median'])} {line['unit']}",
        "10 % to 90 %": f"{number(line['p10'])} to {number(line['p90'])} ({line['rounds']})",
        "goal": "" if goal is None else f"{bound} {number(goal)}",
        "reached": {None: "", True: "yes", False: "no"}[line["reached"]],
    }


def number(value: float) -> str:
    """With as many digits as it deserves."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cpu_by_role(rows: Sequence[Row]) -> list[dict[str, str]]:
    """CPU microseconds a message and megabytes by process, medians of the rounds."""
    used: dict[str, list[float]] = {}
    held: dict[str, list[float]] = {}
    for row in rows:
        for role, seconds in row.get("cpu_s_per_1000", {}).items():
            used.setdefault(role, []).append(seconds * 1e3)
        for role, size in row.get("peak_memory_mb", {}).items():
            held.setdefault(role, []).append(size)
    lines = [
        {
            "process": role,
            "CPU µs": number(measure.Spread.of(used[role]).median) if role in used else "",
            "MB": number(max(held[role])) if role in held else "",
        }
        for role in dict.fromkeys([*used, *held])
    ]
    return sorted(lines, key=lambda line: line["process"].startswith(LOAD))


async def _measured(name: str, sizes: Sizes, as_json: bool) -> list[Row]:
    asked = {key: value for key, value in asdict(sizes).items() if key != "folder"}
    rows: list[Row] = [
        {CONDITIONS: measure.conditions(sync_ms=measure.sync_ms(sizes.folder), **asked)}
    ]
    if as_json:
        _print_line(name, rows[0])
    async for row in workloads.ALL[name].run(sizes):
        rows.append(row)
        if as_json:
            _print_line(name, row)
    return rows


def _print_line(name: str, row: Row) -> None:
    shown = {key: value for key, value in row.items() if key not in _NOT_PRINTED}
    print(json.dumps({"workload": name, **shown}), flush=True)


def ledger_error(error: BaseException) -> LedgerError | None:
    """The first one in an error or in the groups of tasks that it came through."""
    return next((one for one in leaves(error) if isinstance(one, LedgerError)), None)
