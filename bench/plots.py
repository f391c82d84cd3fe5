"""Draws what the workloads gave, an SVG each. Knows rows, and neither files nor HTML."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.measure import Spread
from bench.row import LOAD, Row

Kept = Mapping[str, Sequence[Row]]
"""Rows by workload."""

_COLOURS = ("#2f6f8f", "#5aa9a3", "#e0a23b", "#c4573f", "#7d5a88", "#9db668", "#4c4f69")
_LOAD_COLOURS = ("#c9cdd3", "#dfe2e6", "#b3b8c0")
_GOOD, _BAD, _GREY = "#3f8f5f", "#c4573f", "#8a919c"
_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "bench",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "axes.edgecolor": _GREY,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "legend.frameon": False,
}
_COSTED = ("campaign-known", "campaign-new", "inbound", "chat")


def goals(lines: Sequence[Row]) -> str:
    """How far each figure of a summary is on its way to its goal; 1 is there."""
    shown = [line for line in lines if line["goal"] is not None][::-1]

    def draw(axes: Axes) -> None:
        for place, line in enumerate(shown):
            far = (
                line["goal"] / line["median"] if line["at most"] else line["median"] / line["goal"]
            )
            axes.barh(place, min(far, 2.5), color=_GOOD if line["reached"] else _BAD, height=0.6)
            axes.text(min(far, 2.5) + 0.03, place, f"{far:.2f}", va="center", color=_GREY)
        axes.axvline(1, color="black", linewidth=1.2)
        axes.set_yticks(range(len(shown)), [f"{one['workload']}: {one['figure']}" for one in shown])
        axes.set(xlim=(0, 2.7), xlabel="times the goal (1 is the goal; longer is better)")
        axes.grid(axis="y", visible=False)

    return _svg(draw, 10, 0.8 + 0.36 * len(shown))


def costs(kept: Kept) -> str | None:
    """A message's CPU time by process, a bar a workload; load generators are pale."""
    names = [name for name in _COSTED if any("cpu_s_per_1000" in row for row in kept.get(name, ()))]
    if not names:
        return None

    def draw(axes: Axes) -> None:
        colours = _role_colours(role for name in names for role in _medians(kept[name]))
        labelled: set[str] = set()
        for name in names:
            below = 0.0
            for role, micros in _medians(kept[name]).items():
                label = None if role in labelled else role
                labelled.add(role)
                axes.bar(name, micros, bottom=below, color=colours[role], label=label, width=0.6)
                below += micros
            axes.text(name, below, f"{below:,.0f}", ha="center", va="bottom")
        axes.set(ylabel="CPU µs a message")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    return _svg(draw, 10, 4.2)


def latencies(kept: Kept) -> str | None:
    """Share of messages that arrived within a time, a line a rate; all rounds together."""
    by_rate: dict[int, list[float]] = {}
    for row in kept.get("latency", ()):
        if "latencies_ms" in row:
            by_rate.setdefault(row["rate"], []).extend(row["latencies_ms"])
    if not by_rate:
        return None

    def draw(axes: Axes) -> None:
        for (rate, taken), colour in zip(sorted(by_rate.items()), _COLOURS, strict=False):
            ordered = sorted(taken)
            shares = [(place + 1) / len(ordered) for place in range(len(ordered))]
            axes.plot(ordered, shares, color=colour, label=f"{rate:,} messages/s")
        axes.axhline(0.99, color=_GREY, linestyle=":", linewidth=1)
        axes.axhline(0.5, color=_GREY, linestyle=":", linewidth=1)
        axes.set(xscale="log", xlabel="milliseconds", ylabel="share of messages", ylim=(0, 1.02))
        _plain(axes)
        axes.legend(loc="lower right")

    return _svg(draw, 10, 3.6)


def sides(kept: Kept) -> str | None:
    """Our relay beside the peers of the same run, with the spread of the rounds."""
    speeds: dict[str, list[float]] = {}
    for row in kept.get("peers", ()):
        if "side" in row:
            speeds.setdefault(row["side"], []).append(row["messages_per_s"])
    if not speeds:
        return None

    def draw(axes: Axes) -> None:
        for place, (name, samples) in enumerate(reversed(speeds.items())):
            spread = Spread.of(samples)
            axes.barh(
                place,
                spread.median,
                xerr=[[spread.median - spread.p10], [spread.p90 - spread.median]],
                color=_COLOURS[0] if name == "relay" else _GREY,
                height=0.6,
                ecolor="black",
                capsize=3,
            )
        axes.set_yticks(range(len(speeds)), list(speeds)[::-1])
        axes.set(xlabel="messages/s")
        axes.grid(axis="y", visible=False)

    return _svg(draw, 10, 0.9 + 0.5 * len(speeds))


def ratchets(kept: Kept) -> str | None:
    """CPU time of each operation: ours beside the official client's."""
    by_side: dict[str, dict[str, float]] = {}
    for row in kept.get("crypto", ()):
        if "implementation" in row:
            by_side.setdefault(row["implementation"], {})[row["operation"]] = row["cpu_median_us"]
    if not by_side:
        return None
    operations = list(dict.fromkeys(name for taken in by_side.values() for name in taken))[::-1]

    def draw(axes: Axes) -> None:
        height = 0.8 / len(by_side)
        for number, (side, taken) in enumerate(by_side.items()):
            places = [
                place + 0.4 - (number + 0.5) * height
                for place, name in enumerate(operations)
                if name in taken
            ]
            lengths = [taken[name] for name in operations if name in taken]
            colour = _COLOURS[0] if number == 0 else _GREY
            axes.barh(places, lengths, height=height, color=colour, label=side)
        axes.set_yticks(range(len(operations)), operations)
        axes.set(xlabel="CPU µs an operation (logarithmic)", xscale="log")
        _plain(axes)
        axes.grid(axis="y", visible=False)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    return _svg(draw, 10, 0.9 + 0.42 * len(operations))


def growth(kept: Kept) -> str | None:
    """Throughput and memory while the stores grow."""
    rows = kept.get("growth", ())
    if not any("sessions" in row for row in rows):
        return None
    with mpl.rc_context(_STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for key, label, colour in (
        ("sessions", "sessions at the gateway", _COLOURS[0]),
        ("waiting", "waiting messages at the relay", _COLOURS[2]),
    ):
        sizes = sorted({row[key] for row in rows if key in row})
        speed = [_median(rows, key, size, _speed) for size in sizes]
        memory = [_median(rows, key, size, _held) for size in sizes]
        left.plot(sizes, speed, marker="o", color=colour, label=label)
        right.plot(sizes, memory, marker="o", color=colour, label=label)
    left.set(xscale="log", ylabel="messages/s", ylim=(0, None))
    right.set(xscale="log", ylabel="MB, all processes", ylim=(0, None))
    _plain(left)
    _plain(right)
    left.legend(loc="lower left")
    return _saved(figure)


def memory(kept: Kept) -> str | None:
    """What the daemon holds, by process: with idle devices, and at the peak of each workload."""
    held: dict[str, dict[str, float]] = {}
    for name, rows in kept.items():
        for row in rows:
            sizes = row.get("peak_memory_mb", {})
            if name in (*_COSTED, "devices") and sum(sizes.values()) > sum(
                held.get(name, {}).values()
            ):
                held[name] = sizes
    if not held:
        return None

    def draw(axes: Axes) -> None:
        colours = _role_colours(role for sizes in held.values() for role in sizes)
        labelled: set[str] = set()
        for name, sizes in list(held.items())[::-1]:
            left = 0.0
            for role, size in sizes.items():
                label = None if role in labelled else role
                labelled.add(role)
                axes.barh(name, size, left=left, color=colours[role], label=label, height=0.6)
                left += size
        axes.set(xlabel="MB (PSS)")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    return _svg(draw, 10, 1.2 + 0.5 * len(held))


def _medians(rows: Sequence[Row]) -> dict[str, float]:
    taken: dict[str, list[float]] = {}
    for row in rows:
        for role, seconds in row.get("cpu_s_per_1000", {}).items():
            taken.setdefault(role, []).append(seconds * 1e3)
    return {role: Spread.of(samples).median for role, samples in taken.items()}


def _role_colours(roles: Iterable[str]) -> dict[str, str]:
    named = list(dict.fromkeys(roles))
    load = [role for role in named if role.startswith(LOAD)]
    ours = [role for role in named if role not in load]
    return {
        **{role: _COLOURS[place % len(_COLOURS)] for place, role in enumerate(ours)},
        **{role: _LOAD_COLOURS[place % len(_LOAD_COLOURS)] for place, role in enumerate(load)},
    }


def _median(rows: Sequence[Row], key: str, size: int, read: Callable[[Row], float]) -> float:
    return Spread.of([read(row) for row in rows if row.get(key) == size]).median


def _speed(row: Row) -> float:
    return float(row["messages_per_s"])


def _held(row: Row) -> float:
    return float(sum(row["peak_memory_mb"].values()))


def _plain(axes: Axes) -> None:
    """Numbers as people write them along a logarithmic axis, one for each power of ten."""
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _svg(draw: Callable[[Axes], None], width: float, height: float) -> str:
    with mpl.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
        draw(axes)
        return _saved(figure)


def _saved(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    plt.close(figure)
    return buffer.getvalue()
