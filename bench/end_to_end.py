"""The whole way, through the real daemon: business stream to device stream, and back.

    python -m bench.end_to_end [--json] [--users N] [--messages N] [--rounds N] [--only WORKLOAD]

`letterlockd serve` as it is shipped: processes of its own, TLS, every answer after its fsync. One
business and its users' devices write to each other; the devices are in a process of their own, and
everything, load generators included, shares the machine. Sessions are established and answered
before the clock starts, and a first round only warms up. Every message must arrive exactly once and
be reported as delivered exactly once, or the run fails.

    outbound   messages/s, business to devices, 4,096 without an answer at most
    inbound    messages/s, devices to business
    paced      latency at a fixed rate, from when a message was due to when its device has its text
    devices    memory of all daemon processes with idle connected devices
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from bench import measure, plots
from bench.business import DELIVERED, LedgerError
from bench.processes import Usage, watched_memory
from bench.stage import FIRST_USER, PATIENCE_S, TEXT_BYTES, WINDOW, Stage, stage

BENCH = "end-to-end"
RATE = 200
DEVICES_EACH = 6
DEVICE_BURST = 200
"""What the relay takes from one device at once (`relay/settings.py`, submissions_per_device).
Beyond that it may refuse, rightly, and the ledger would stay open."""
GOALS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "outbound": ("at least 5,000 messages/s", lambda speed: speed >= 5_000),
    "paced": ("p99 below 50 ms", lambda p99: p99 < 50),
    "devices": ("below 600 MB with 2,000 devices", lambda memory: memory < 600),
}
Row = dict[str, Any]


async def outbound(on: Stage, count: int) -> Row:
    """Business to devices, closed loop."""

    async def work() -> float:
        await on.fleet("begin", expected=count)
        on.business.events.begin()
        began = await on.business.send(count, WINDOW)
        came = await on.fleet("finish", patience_s=PATIENCE_S)
        await _balance(on, came, count)
        return float(came["last_s"]) - began

    return await _costed(on, count, work)


async def inbound(on: Stage, count: int) -> Row:
    """Devices to business."""

    async def work() -> float:
        on.business.events.begin()
        sent = await on.fleet("send", count=count, body="x" * TEXT_BYTES)
        try:
            await on.business.until_texts(count, PATIENCE_S)
        finally:
            await _nothing_refused(on)
        if on.business.events.repeated:
            raise LedgerError(f"{on.business.events.repeated} messages came twice")
        return on.business.events.last_s - float(sent["began_s"])

    return await _costed(on, count, work)


async def paced(on: Stage, rate: int, count: int) -> Row:
    """Business to devices, open loop."""

    async def work() -> list[float]:
        await on.fleet("begin", expected=count)
        on.business.events.begin()
        await on.business.send_at(rate, count)
        came = await on.fleet("finish", patience_s=PATIENCE_S)
        await _balance(on, came, count)
        return list(came["latencies_ms"])

    before = on.cpu_s()
    latencies = await work()
    return {
        "p50_ms": round(measure.quantile(latencies, 0.5), 1),
        "p99_ms": round(measure.quantile(latencies, 0.99), 1),
        "max_ms": round(latencies[-1], 1),
        "cpu_s_per_1000": _per_thousand(before, on.cpu_s(), count),
        "latencies_ms": latencies,
    }


async def devices(on: Stage, count: int) -> Row:
    """Connected devices that get nothing: what the daemon holds for them."""
    before = on.processes.memory_mb()
    users = -(-count // DEVICES_EACH)
    made = await on.fleet(
        "register", users=users, devices_each=DEVICES_EACH, first_number=FIRST_USER
    )
    after = on.processes.memory_mb()
    total, total_before = sum(after.values()), sum(before.values())
    return {
        "devices": made["devices"],
        "memory_mb": round(total),
        "memory_without_mb": round(total_before),
        "kb_per_device": round((total - total_before) * 1e3 / made["devices"], 1),
        "memory_by_role_mb": {role: round(held) for role, held in after.items()},
    }


async def _balance(on: Stage, came: Row, count: int) -> None:
    """Every message arrived once, and was reported as delivered once."""
    if (came["arrived"], came["repeated"], came["strange"]) != (count, 0, 0):
        raise LedgerError(
            f"of {count} messages {came['arrived']} arrived, {came['repeated']} of them again, "
            f"{came['strange']} with a number that was not sent"
        )
    await on.business.until_delivered(count, PATIENCE_S)
    if (reports := on.business.events.statuses[DELIVERED]) != count:
        raise LedgerError(f"{reports} reports of delivery for {count} messages")


async def _nothing_refused(on: Stage) -> None:
    """A refusal is why the ledger stays open: told instead of the count that it leaves."""
    if refused := (await on.fleet("refusals"))["refused"]:
        raise LedgerError(f"the relay refused messages of devices: {refused}")


async def _costed(on: Stage, count: int, work: Callable[[], Awaitable[float]]) -> Row:
    """The speed of some work, and what it took from the processes."""
    before = on.cpu_s()
    async with watched_memory(on.processes) as peak:
        seconds = await work()
    return {
        "messages_per_s": round(count / seconds),
        "cpu_s_per_1000": _per_thousand(before, on.cpu_s(), count),
        "peak_memory_mb": {role: round(held) for role, held in peak.items()},
    }


def _per_thousand(before: Usage, after: Usage, count: int) -> dict[str, float]:
    return {role: round((after[role] - before[role]) / count * 1e3, 3) for role in after}


async def measured(arguments: argparse.Namespace) -> AsyncIterator[Row]:
    """One row for each round of each workload; the conditions come first."""
    wanted = set(arguments.only or ["outbound", "inbound", "paced", "devices"])
    yield {
        "workload": "conditions",
        **measure.conditions(
            sync_ms=measure.sync_ms(arguments.folder),
            message_bytes=TEXT_BYTES,
            users=arguments.users,
            messages=arguments.messages,
            memory="PSS",
        ),
    }
    if wanted - {"devices"}:
        async for row in _talking(arguments, wanted):
            yield row
    if "devices" in wanted:
        async with stage(arguments.folder, 0) as on:
            yield {"workload": "devices", **await devices(on, arguments.devices)}


async def _talking(arguments: argparse.Namespace, wanted: set[str]) -> AsyncIterator[Row]:
    count = arguments.messages - arguments.messages % arguments.users
    async with stage(arguments.folder, arguments.users) as on:
        await on.establish(arguments.users)
        await outbound(on, count)
        for round_ in range(arguments.rounds):
            if "outbound" in wanted:
                yield {"workload": "outbound", "round": round_, **await outbound(on, count)}
            if "inbound" in wanted:
                most = min(count, arguments.users * DEVICE_BURST)
                yield {"workload": "inbound", "round": round_, **await inbound(on, most)}
            if "paced" in wanted:
                paced_count = RATE * arguments.seconds
                yield {"workload": "paced", "round": round_, **await paced(on, RATE, paced_count)}


def summary(rows: Sequence[Row]) -> list[Row]:
    """The figures that have goals, and those beside them: median, spread, goal."""
    made = []
    for workload, figure, unit in (
        ("outbound", "messages_per_s", "messages/s"),
        ("inbound", "messages_per_s", "messages/s"),
        ("paced", "p50_ms", "ms, p50"),
        ("paced", "p99_ms", "ms, p99"),
        ("devices", "memory_mb", "MB"),
    ):
        samples = [row[figure] for row in rows if row["workload"] == workload]
        if samples:
            made.append(_line(workload, figure, unit, measure.Spread.of(samples)))
    return made


def _line(workload: str, figure: str, unit: str, spread: measure.Spread) -> Row:
    goal, reached = GOALS.get(workload, ("", None))
    shown = "" if reached is None or figure == "p50_ms" else goal
    return {
        "workload": workload,
        "median": f"{spread.median:,.0f} {unit}",
        "10 % to 90 %": f"{spread.p10:,.0f} to {spread.p90:,.0f}",
        "goal": shown,
        "reached": ("yes" if reached(spread.median) else "no") if reached and shown else "",
    }


def costs(rows: Sequence[Row]) -> list[Row]:
    """Microseconds of CPU a message by role, medians of the rounds."""
    made: dict[str, Row] = {}
    for workload in ("outbound", "inbound", "paced"):
        taken = [row["cpu_s_per_1000"] for row in rows if row["workload"] == workload]
        for role in taken[0] if taken else ():
            median = measure.Spread.of([one[role] for one in taken]).median
            made.setdefault(role, {"process": role})[workload] = round(median * 1e3)
    total: Row = {"process": "all"}
    for line in made.values():
        for workload, micros in line.items():
            if workload != "process":
                total[workload] = total.get(workload, 0) + micros
    return [*made.values(), total] if made else []


async def run(arguments: argparse.Namespace) -> list[Row]:
    """Measure, print, keep the lines and draw the plots; the rows."""
    rows: list[Row] = []
    async for row in measured(arguments):
        rows.append(row)
        if arguments.json:
            shown = {name: value for name, value in row.items() if name != "latencies_ms"}
            print(json.dumps({"bench": BENCH, **shown}), flush=True)
    measure.keep(BENCH, rows)
    plots.draw(rows, measure.RESULTS / f"{BENCH}.svg")
    if not arguments.json:
        report(rows)
    return rows


def report(rows: Sequence[Row]) -> None:
    """Tables for people."""
    console = Console(width=measure.WIDTH)
    console.print(", ".join(f"{name} {value}" for name, value in rows[0].items() if value != BENCH))
    console.print(measure.grid("End to end", summary(rows)))
    if lines := costs(rows):
        console.print(measure.grid("CPU microseconds a message", lines))


def options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The workloads' sizes."""
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--messages", type=int, default=40_000, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10, help="of a paced round")
    parser.add_argument("--devices", type=int, default=2_000, help="that are connected and idle")
    parser.add_argument(
        "--only", action="append", choices=["outbound", "inbound", *list(GOALS)[1:]]
    )
    parser.add_argument("--folder", type=Path, help="where the daemon writes [a temporary folder]")
    return parser


def main() -> None:
    """Command line."""
    parser = options(argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]))
    parser.add_argument("--json", action="store_true", help="JSON lines instead of tables")
    try:
        uvloop.run(run(parser.parse_args()))
    except LedgerError as error:
        sys.exit(f"the ledger does not balance: {error}")


if __name__ == "__main__":
    main()
