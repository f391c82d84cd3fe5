"""Draws what the end-to-end workloads gave: where CPU time goes, and how latency is spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write one SVG."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    _costs(left, rows)
    _latencies(right, [row for row in rows if row["workload"] == "paced"])
    figure.savefig(path)
    plt.close(figure)


def _costs(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """A bar a direction, a piece a process."""
    for place, workload in enumerate(("outbound", "inbound")):
        taken = [row["cpu_s_per_1000"] for row in rows if row["workload"] == workload]
        below = 0.0
        for number, role in enumerate(taken[0] if taken else ()):
            micros = 1e3 * sum(one[role] for one in taken) / len(taken)
            label = role if place == 0 else None
            axes.bar(workload, micros, bottom=below, color=f"C{number}", label=label)
            below += micros
    axes.set(title="Where a message's time goes", ylabel="CPU microseconds a message")
    if axes.patches:
        axes.legend(fontsize="small")


def _latencies(axes: Axes, rounds: Sequence[dict[str, Any]]) -> None:
    """Share of messages that arrived within a time, a line a round."""
    for row in rounds:
        ordered = row["latencies_ms"]
        shares = [(place + 1) / len(ordered) for place in range(len(ordered))]
        axes.plot(ordered, shares, linewidth=1, label=f"round {row['round'] + 1}")
    axes.axvline(50, color="grey", linestyle=":", linewidth=1)
    axes.set(
        title="Business stream to device, 200 messages/s",
        xlabel="milliseconds",
        ylabel="share of messages",
        ylim=(0, 1.01),
    )
    if rounds:
        axes.legend(fontsize="small")
