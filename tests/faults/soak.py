"""Many fault rounds in a row, with a report.

    python -m tests.faults.soak --rounds 1000            make soak
    python -m tests.faults.soak --seed 4711 --rounds 1   one round again

Seeds count up from `--seed`. The people and the stores live on for `--together` rounds, then all
begins anew in an empty folder. Ends with exit code 1 at the first round that broke a promise, and
leaves the folder of its site to be looked at. Ctrl-C ends it with a report, too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from tests.faults.report import Report
from tests.faults.rounds import Outcome, Plan, play
from tests.faults.traffic import traffic
from tests.harness.search import leaks, number_patterns, text_patterns
from tests.harness.site import site

MARKER = "quagga and okapi"
"""In every text, so that none can be on the disk unseen."""

USERS = 3


async def soak(seed: int, rounds: int, together: int, report: Report) -> None:
    """Play the rounds, and note them in the report, until one breaks a promise."""
    for first in range(seed, seed + rounds, together):
        seeds = range(first, min(first + together, seed + rounds))
        folder = Path(tempfile.mkdtemp(prefix="letterlock-soak-"))
        try:
            await run(folder, seeds, report)
        except Exception as error:
            report.failed(f"seeds {seeds.start} to {seeds.stop - 1}: {error!r}")
            traceback.print_exc()
        if report.violations:
            print(f"the site is left in {folder}")
            return
        shutil.rmtree(folder)


async def run(folder: Path, seeds: range, report: Report) -> None:
    """Rounds on one site, then a look for what must not be on its disk or in its log."""
    numbers = (f"+1557{n:07d}" for n in range(seeds.start % 1000 * 1000, 10_000_000))
    told: list[str] = []

    def new_number() -> str:
        told.append(next(numbers))
        return told[-1]

    async with site(folder) as running:
        try:
            async with traffic(
                running, users=USERS, marker=MARKER, new_number=new_number
            ) as people:
                for seed in seeds:
                    plan = Plan.of(seed)
                    try:
                        outcome = await play(running, people, plan)
                    except Exception:
                        report.failed(f"--seed {seed}: {plan}: did not come to an end")
                        raise
                    report.add(outcome)
                    print(line(outcome), flush=True)
                    if outcome.violations:
                        break
        finally:
            (folder / "log.jsonl").write_text(running.text)
            report.of_site(running)
    (folder / "log.jsonl").write_text(running.text)
    needles = {f"text: {kind}": pattern for kind, pattern in text_patterns(MARKER).items()}
    for number in told[:5]:
        needles |= {f"{number}: {kind}": found for kind, found in number_patterns(number).items()}
    for found in leaks(folder, needles):
        report.failed(f"readable: {found}")


def line(outcome: Outcome) -> str:
    """A round in a line, and what it broke."""
    said = f"{outcome.sent} sent, {outcome.heard} heard, {outcome.seconds:.1f} s"
    verdict = "; ".join(outcome.violations) or "good"
    return f"round --seed {outcome.plan.seed}: {outcome.plan}: {said}: {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--together", type=int, default=100, help="rounds on one site")
    parser.add_argument("--report", type=Path, help="where to write the report")
    chosen = parser.parse_args()
    report = Report(chosen.seed)
    with contextlib.suppress(KeyboardInterrupt):  # what was played until then is reported
        asyncio.run(soak(chosen.seed, chosen.rounds, chosen.together, report))
    text = report.text()
    print(text)
    if chosen.report is not None:
        chosen.report.write_text(text)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
