"""What the daemon's processes use: CPU time and memory, by role.

Memory is PSS: pages that processes share are counted once in all, so that the figures of a dozen
Python processes may be added up.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

Usage = dict[str, float]
"""Seconds or megabytes by role."""

SAMPLE_SECONDS = 2.0
"""Adding up the pages of all processes takes some 20 ms; at twice a second it was a fifth of what
the business's load generator is charged with."""
_ROLES = {"gateway": "gateway front", "relay": "relay front"}
_CHILDREN = {
    "letterlockd.workers.child": "workers",
    "letterlockd.store.lmdb.committer": "committers",
}


class DaemonProcesses:
    """The processes below a running `letterlockd serve`."""

    def __init__(self, supervisor: int) -> None:
        top = psutil.Process(supervisor)
        self._roles: dict[psutil.Process, str] = {top: "supervisor"}
        for role in top.children():
            name = next(name for name in _ROLES if name in role.cmdline())
            self._roles[role] = _ROLES[name]
            for child in role.children():
                kind = next(kind for module, kind in _CHILDREN.items() if module in child.cmdline())
                self._roles[child] = f"{name} {kind}"

    def pids(self) -> dict[int, str]:
        """The role of each process."""
        return {process.pid: role for process, role in self._roles.items()}

    def cpu_s(self) -> Usage:
        """CPU seconds since their start, user and system, by role."""
        return cpu_s(self.pids())

    def memory_mb(self) -> Usage:
        """PSS in megabytes (10^6), by role."""
        return memory_mb(self.pids())


def cpu_s(pids: Mapping[int, str]) -> Usage:
    """CPU seconds of some processes since their start, by role."""
    used: Usage = defaultdict(float)
    for pid, role in pids.items():
        times = psutil.Process(pid).cpu_times()
        used[role] += times.user + times.system
    return used


def memory_mb(pids: Mapping[int, str]) -> Usage:
    """PSS of some processes in megabytes (10^6), by role."""
    held: Usage = defaultdict(float)
    for pid, role in pids.items():
        held[role] += pss_bytes(pid) / 1e6
    return held


def own_memory_mb(pids: Mapping[int, str]) -> float:
    """What some processes hold together in megabytes, without pages of files: those are the stores'
    and in the kernel's cache, which takes them back when it needs room."""
    return round(sum(pss_bytes(pid, "Pss_Anon") for pid in pids) / 1e6, 1)


def rounded(held: Usage) -> dict[str, int]:
    """Whole megabytes, for a row."""
    return {role: round(size) for role, size in held.items()}


def pss_bytes(pid: int, kind: str = "Pss") -> int:
    """The proportional set size of a process, or the part of it that `kind` names (proc(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == kind:
            return int(value.split()[0]) * 1024
    raise LookupError(f"process {pid} has no {kind}")


@asynccontextmanager
async def watched_memory(processes: DaemonProcesses) -> AsyncIterator[Usage]:
    """The memory at the moment when all together were largest; filled while the block runs."""
    peak: Usage = defaultdict(float)

    def sample() -> None:
        now = processes.memory_mb()
        if sum(now.values()) > sum(peak.values()):
            peak.clear()
            peak.update(now)

    async def watch() -> None:
        while True:
            await asyncio.to_thread(sample)
            await asyncio.sleep(SAMPLE_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        sample()
