"""What a workload gives and takes: rows of figures, and sizes.

A row is one round of one workload. `cpu_s_per_1000` (CPU seconds per thousand messages) and
`peak_memory_mb` are by process, load generators (whose role begins with "load") included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]

LOAD = "load"
"""The first word of a role that is not the daemon's."""


@dataclass(frozen=True)
class Sizes:
    """How large the workloads are; the defaults are those of the full figures."""

    rounds: int = 5
    messages: int = 20_000
    """A round."""
    users: int = 100
    new_users: int = 1_000
    """Of campaign-new, a message each a round."""
    conversations: int = 1_000
    turns: int = 20
    """Each way, of a round of chat; a device's burst at the relay bounds it to 200."""
    rates: tuple[int, ...] = (200, 500, 1_000)
    seconds: int = 10
    """A round at a fixed rate, and how long idle devices are watched."""
    devices: int = 5_000
    mailboxes: int = 10_000
    growth: tuple[int, ...] = (10_000, 100_000)
    """Sessions, and messages that wait."""
    folder: Path | None = None
    """Where daemons write; None is the temporary folder."""


def per_thousand(
    before: Mapping[str, float], after: Mapping[str, float], count: int
) -> dict[str, float]:
    """CPU seconds per thousand messages by role."""
    return {role: round((after[role] - before[role]) / count * 1e3, 4) for role in after}


def daemon_cpu_us(row: Row) -> float:
    """CPU microseconds a message over all processes but the load generators."""
    used: dict[str, float] = row["cpu_s_per_1000"]
    return 1e3 * sum(share for role, share in used.items() if not role.startswith(LOAD))
