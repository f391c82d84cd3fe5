"""Fifty fault rounds on one pair of processes, each with seeded faults in seeded traffic; see
`rounds`. A round that fails is played again with `python -m tests.faults.soak --seed N --rounds 1`;
`make soak` plays a thousand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.injections import CATALOGUE
from tests.faults.report import Report
from tests.faults.rounds import Plan
from tests.faults.soak import run

pytestmark = pytest.mark.faults

ROUNDS = 50


@pytest.mark.timeout(600)
async def test_no_promise_is_broken(tmp_path: Path) -> None:
    report = Report(0)
    await run(tmp_path / "site", range(ROUNDS), report)
    assert report.violations == [], report.text()


def test_the_rounds_meet_every_fault() -> None:
    names = {fault.name for seed in range(ROUNDS) for fault in Plan.of(seed).faults}
    assert names == CATALOGUE.keys()
