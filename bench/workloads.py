"""The named workloads, what each is for, and the goals that its figures are held against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from bench import crypto, growth, peers, relay, traffic
from bench.measure import Spread, ratio
from bench.row import Row, Sizes, daemon_cpu_us

Read = Callable[[Sequence[Row]], Sequence[float]]
"""The samples of a figure, out of a workload's rows: one for each round that has it."""


@dataclass(frozen=True)
class Figure:
    """One number of a workload: how it is read, shown, and what it is to reach."""

    name: str
    unit: str
    read: Read
    goal: float | None = None
    smaller: bool = False
    """Whether less is better."""

    def reached(self, value: float) -> bool | None:
        """Whether a value meets the goal; None without one."""
        if self.goal is None:
            return None
        return value <= self.goal if self.smaller else value >= self.goal


@dataclass(frozen=True)
class Workload:
    """One command of the harness."""

    name: str
    run: Callable[[Sizes], AsyncIterator[Row]]
    figures: tuple[Figure, ...]

    @property
    def what(self) -> str:
        """Its line of help."""
        return (self.run.__doc__ or "").partition("\n")[0]


def _field(name: str, **where: object) -> Read:
    """A field of the rows that have it, and in which all of `where` holds."""
    return lambda rows: [
        row[name]
        for row in rows
        if name in row and all(row.get(key) == value for key, value in where.items())
    ]


def _rounds_of(name: str, operation: str) -> Read:
    """A field of the operation's row that has a value for each round."""
    return lambda rows: [
        value for row in rows if row.get("operation") == operation for value in row.get(name, ())
    ]


def _cpu(rows: Sequence[Row]) -> list[float]:
    return [daemon_cpu_us(row) for row in rows if "cpu_s_per_1000" in row]


def _over_best_peer(rows: Sequence[Row]) -> list[float]:
    """Our relay's speed over that of the fastest durable peer, round by round."""
    speeds: dict[str, list[float]] = {}
    for row in rows:
        if "side" in row:
            speeds.setdefault(row["side"], []).append(row["messages_per_s"])
    ours = speeds.pop("relay", [])
    if not ours or not speeds:
        return []
    best = max(speeds.values(), key=lambda samples: Spread.of(samples).median)
    return ratio(ours, best)


def _kept(key: str, read: Callable[[Row], float]) -> Read:
    """A value at the largest store over that at the smallest, round by round."""

    def kept(rows: Sequence[Row]) -> list[float]:
        by_size: dict[int, list[float]] = {}
        for row in rows:
            if key in row:
                by_size.setdefault(row[key], []).append(read(row))
        if len(by_size) < 2:
            return []
        return ratio(by_size[max(by_size)], by_size[min(by_size)])

    return kept


def _speed(row: Row) -> float:
    return float(row["messages_per_s"])


def _memory(row: Row) -> float:
    return float(sum(row["peak_memory_mb"].values()))


def _own_memory(row: Row) -> float:
    return float(row["own_memory_mb"])


RATES = (50, 100, 200, 500, 1_000, 2_000)
"""Messages a second at which latency can be measured."""
_LATENCY_GOALS = {("p99", 200): 50, ("p50", 500): 5, ("p99", 500): 15}
_SPEED = _field("messages_per_s")
ALL = {
    workload.name: workload
    for workload in (
        Workload(
            "crypto",
            crypto.workload,
            (
                *(
                    Figure(
                        f"{name}, against the official client",
                        "times",
                        _rounds_of("times_less_cpu", name),
                        goal,
                    )
                    for name, goal in crypto.GOALS.items()
                ),
                *(
                    Figure(
                        f"{name}, over bare primitives",
                        "times",
                        _rounds_of("over_primitives", name),
                        crypto.BATCH_GOAL,
                        smaller=True,
                    )
                    for name in crypto.COUNTERPARTS
                ),
            ),
        ),
        Workload(
            "relay",
            relay.relay,
            (
                Figure("throughput", "messages/s", _SPEED),
                Figure("daemon CPU", "µs a message", _cpu),
            ),
        ),
        Workload(
            "peers",
            peers.peers,
            (
                Figure("relay over the best durable peer", "times", _over_best_peer, 1.2),
                *(
                    Figure(name, "messages/s", _field("messages_per_s", side=name))
                    for name in ("relay", *peers.NAMES)
                ),
            ),
        ),
        Workload(
            "campaign-known",
            traffic.campaign_known,
            (
                Figure("throughput", "messages/s", _SPEED, 10_000),
                Figure("daemon CPU", "µs a message", _cpu, 150, smaller=True),
            ),
        ),
        Workload(
            "campaign-new",
            traffic.campaign_new,
            (Figure("throughput", "messages/s", _SPEED, 1_500),),
        ),
        Workload("inbound", traffic.inbound, (Figure("throughput", "messages/s", _SPEED, 8_000),)),
        Workload(
            "chat",
            traffic.chat,
            (
                Figure("throughput", "messages/s", _SPEED),
                Figure("daemon CPU", "µs a message", _cpu),
            ),
        ),
        Workload(
            "latency",
            traffic.latency,
            tuple(
                Figure(
                    f"{which} at {rate:,}/s",
                    "ms",
                    _field(f"{which}_ms", rate=rate),
                    _LATENCY_GOALS.get((which, rate)),
                    smaller=True,
                )
                for rate in RATES
                for which in ("p50", "p99")
            ),
        ),
        Workload(
            "devices",
            traffic.devices,
            (
                Figure("devices held", "devices", _field("devices"), 5_000),
                Figure("an idle device", "kB", _field("kb_per_device"), 100, smaller=True),
                Figure("idle CPU", "cores", _field("idle_cores"), smaller=True),
            ),
        ),
        Workload(
            "growth",
            growth.growth,
            tuple(
                figure
                for key, what in (("sessions", "sessions"), ("waiting", "waiting messages"))
                for figure in (
                    Figure(f"{what}: throughput kept", "times", _kept(key, _speed), 0.9),
                    Figure(f"{what}: memory", "times", _kept(key, _memory), smaller=True),
                    Figure(
                        f"{what}: memory but for files' pages",
                        "times",
                        _kept(key, _own_memory),
                        smaller=True,
                    ),
                )
            ),
        ),
    )
}


def summary(name: str, rows: Sequence[Row]) -> list[Row]:
    """The figures of a workload beside their goals: medians with their spread."""
    made: list[Row] = []
    for figure in ALL[name].figures:
        if samples := figure.read(rows):
            spread = Spread.of(samples)
            reached = figure.reached(spread.median)
            made.append(
                {
                    "workload": name,
                    "figure": figure.name,
                    "median": spread.median,
                    "p10": spread.p10,
                    "p90": spread.p90,
                    "rounds": spread.rounds,
                    "unit": figure.unit,
                    "goal": figure.goal,
                    "at most": figure.smaller,
                    "reached": reached,
                }
            )
    return made
