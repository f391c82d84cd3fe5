"""The page stands alone, and shows figures beside their goals."""

from __future__ import annotations

import re

from bench.report import page
from bench.row import Row
from bench.workloads import summary


def _rows() -> dict[str, list[Row]]:
    used, held = {"gateway front": 0.14, "load: users": 0.1}, {"gateway front": 50}
    campaign = {"messages_per_s": 9_000, "cpu_s_per_1000": used, "peak_memory_mb": held}
    sides = [{"side": side, "messages_per_s": 10} for side in ("relay", "redis")]
    paced = {"rate": 500, "p50_ms": 4, "p99_ms": 20, "latencies_ms": [1, 2, 20]}
    skipped = {"skipped": "postgresql", "because": "no <server> here"}
    return {
        "campaign-known": [{"conditions": {"cores": 2}}, campaign],
        "peers": [{"conditions": {"cores": 2}}, skipped, *sides],
        "latency": [{"conditions": {"cores": 2}}, paced],
    }


def test_the_page_shows_figures_beside_goals_and_its_ids_are_unique() -> None:
    rows = _rows()
    made = page(rows, [line for name in rows for line in summary(name, rows[name])])
    ids = re.findall(r'\bid="([^"]+)"', made)
    assert ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', made)) <= set(ids)
    assert "9,000 messages/s" in made
    assert "at least 10,000" in made
    assert "postgresql was skipped: no &lt;server&gt; here" in made


def test_a_page_of_nothing_says_so() -> None:
    assert "Nothing was measured yet." in page({}, [])
