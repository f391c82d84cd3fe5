"""What many rounds came to: rounds, faults, ledger and verdict, as Markdown."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter

from tests.faults.injections import CATALOGUE
from tests.faults.rounds import Outcome
from tests.harness.site import Site


class Report:
    """Adds up outcomes."""

    def __init__(self, seed: int) -> None:
        self.violations: list[str] = []
        self._seed = seed
        self._began = time.monotonic()
        self._rounds = 0
        self._struck: Counter[str] = Counter()
        self._missed: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._seconds: list[float] = []

    def add(self, outcome: Outcome) -> None:
        """A round that was played to its end."""
        self._rounds += 1
        self._seconds.append(outcome.seconds)
        self._struck += outcome.struck
        self._missed += Counter(f.name for f in outcome.plan.faults) - outcome.struck
        self._counts += outcome.counts
        self._counts["messages of businesses, accepted"] += outcome.sent
        self._counts["messages of users, heard"] += outcome.heard
        for violation in outcome.violations:
            self.failed(f"--seed {outcome.plan.seed}: {violation}")

    def of_site(self, site: Site) -> None:
        """What the processes said and how they ended."""
        for role in site.roles.values():
            for code, times in role.ends.items():
                self._ends[f"{role.name} ended with {code}"] += times
        for fault in set(site.faults_of_ours()):
            self.failed(f"logged as a bug: {fault}")

    def failed(self, violation: str) -> None:
        """A promise that was broken."""
        self.violations.append(violation)

    def text(self) -> str:
        """For docs/reliability.md."""
        return "\n".join(
            [
                *self._head(),
                *self._table("fault", "struck", self._struck),
                *self._never(),
                *self._table("seen", "times", self._counts),
                *self._table("processes", "times", self._ends),
                *self._verdict(),
            ]
        )

    def _head(self) -> list[str]:
        took = time.monotonic() - self._began
        longest = max(self._seconds, default=0.0)
        return [
            f"Rounds: {self._rounds}, seeds {self._seed} to {self._seed + self._rounds - 1}, "
            f"{took:.0f} s in all, the longest {longest:.1f} s.",
            f"Machine: {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}, load {os.getloadavg()[0]:.1f} at the end.",
            "",
        ]

    def _table(self, what: str, how_often: str, counts: Counter[str]) -> list[str]:
        rows = [f"| {name} | {times} |" for name, times in sorted(counts.items()) if times]
        return [f"| {what} | {how_often} |", "|---|---|", *rows, ""]

    def _never(self) -> list[str]:
        missed = sum(self._missed.values())
        never = sorted(CATALOGUE.keys() - self._struck.keys())
        text = f"{missed} further faults waited for a place that nobody passed in their round."
        return [text, *([f"Never struck: {', '.join(never)}."] if never else []), ""]

    def _verdict(self) -> list[str]:
        if not self.violations:
            return ["Verdict: **no promise was broken.**", ""]
        return ["Verdict: **broken:**", *(f"- {one}" for one in self.violations), ""]
