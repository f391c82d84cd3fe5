"""A round: seeded traffic, seeded faults in it, and the verdict.

    Plan(seed) ──▶ traffic begins ──▶ each fault at its answer ──▶ all over ──▶ settled ──▶ judge

Faults are dealt like cards, one, two or three a round: the catalogue is shuffled anew whenever it
has been dealt to its end. So half as many seeds in a row as it has entries meet each of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.faults.injections import CATALOGUE
from tests.faults.judge import judge
from tests.faults.traffic import Amount, Traffic
from tests.harness.site import ROLES, Site

_NAMES = tuple(CATALOGUE)


class Timed(NamedTuple):
    """A fault, and how many messages are answered before it strikes."""

    name: str
    after: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed says."""

    seed: int
    amount: Amount
    faults: tuple[Timed, ...]

    @classmethod
    def of(cls, seed: int) -> Plan:
        chosen = random.Random(seed)
        sends = chosen.randrange(20, 60)
        amount = Amount(
            sends=sends,
            writes=chosen.randrange(2, 10),
            newcomers=chosen.randrange(2),
            window=chosen.choice((1, 4, 16, 64)),
            receipts=chosen.randrange(3, 10),
        )
        faults = tuple(Timed(name, chosen.randrange(sends * 3 // 4)) for name in _dealt(seed))
        return cls(seed, amount, faults)

    def __str__(self) -> str:
        return ", ".join(f"{name} (after {after})" for name, after in self.faults)


def _dealt(seed: int) -> Iterator[str]:
    how_many, before = 1 + seed % 3, 6 * (seed // 3) + (0, 1, 3)[seed % 3]
    for card in range(before, before + how_many):
        lap, place = divmod(card, len(_NAMES))
        yield random.Random(lap).sample(_NAMES, len(_NAMES))[place]


@dataclass(slots=True)
class Outcome:
    """What became of a round."""

    plan: Plan
    violations: list[str]
    struck: Counter[str] = field(default_factory=Counter)
    """Faults that happened; one that waited for a place that nobody passed is not in it."""
    sent: int = 0
    heard: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


async def play(site: Site, people: Traffic, plan: Plan) -> Outcome:
    """One round, from a whole site to a whole site."""
    began = time.monotonic()
    await site.whole()
    outcome = Outcome(plan, [])
    seed = random.Random(f"{plan.seed} traffic")
    async with people.round(seed, plan.amount) as saying:
        async with asyncio.TaskGroup() as faults:
            striking = [
                faults.create_task(_strike(site, people, plan.seed, fault, outcome))
                for fault in plan.faults
            ]
            await saying
            for task in striking:
                task.cancel()
        for role in ROLES:
            site.set_clock(role, 0)
        await people.settle()
        outcome.violations = judge(people.ledger)
    outcome.sent = len(people.ledger.sent)
    outcome.heard = len(people.ledger.hearings)
    outcome.counts = people.ledger.counts
    outcome.seconds = time.monotonic() - began
    return outcome


async def _strike(site: Site, people: Traffic, seed: int, fault: Timed, outcome: Outcome) -> None:
    await people.reached(fault.after)
    await CATALOGUE[fault.name](site, random.Random(f"{seed} {fault.name}"))
    outcome.struck[fault.name] += 1
