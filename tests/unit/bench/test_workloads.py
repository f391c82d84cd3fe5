"""Figures out of rows, held against goals and budgets."""

from __future__ import annotations

import pytest

from bench.check import MOST_LOSS, Held, against_budgets
from bench.crypto import Result, over_primitives, rows
from bench.crypto_sides import PRIMITIVES, Ours
from bench.row import Row, daemon_cpu_us, per_thousand
from bench.workloads import ALL, Figure, summary


def _campaign(speed: float, daemon_us: float) -> Row:
    used = {"gateway front": daemon_us / 1e3, "load: users": 5.0}
    return {"messages_per_s": speed, "cpu_s_per_1000": used}


def test_a_message_s_cost_leaves_the_load_generators_out() -> None:
    assert daemon_cpu_us(_campaign(1, 140)) == pytest.approx(140)
    before, after = {"relay front": 1.0}, {"relay front": 3.0}
    assert per_thousand(before, after, 4_000) == {"relay front": 0.5}


def test_summary_holds_medians_against_goals() -> None:
    rows = [
        {"conditions": {}},
        _campaign(9_000, 140),
        _campaign(11_000, 160),
        _campaign(12_000, 170),
    ]
    speed, cpu = summary("campaign-known", rows)
    assert (speed["median"], speed["goal"], speed["reached"]) == (11_000, 10_000, True)
    assert (cpu["median"], cpu["goal"], cpu["reached"]) == (pytest.approx(160), 150, False)


def test_the_relay_is_held_against_the_fastest_peer_of_its_own_rounds() -> None:
    rows = [
        {"skipped": "redis", "because": "not here"},
        *(
            {"side": side, "messages_per_s": speed}
            for side, speed in (
                ("relay", 120),
                ("slow", 10),
                ("fast", 100),
                ("relay", 60),
                ("slow", 9),
                ("fast", 50),
            )
        ),
    ]
    (over,) = (line for line in summary("peers", rows) if line["goal"] is not None)
    assert over["median"] == pytest.approx(1.2)
    assert over["reached"]


def test_without_a_peer_there_is_no_ratio() -> None:
    rows = [{"side": "relay", "messages_per_s": 5}]
    assert [line["figure"] for line in summary("peers", rows)] == ["relay"]


def test_the_ratchet_is_held_against_the_official_client_round_by_round() -> None:
    results = [
        Result("encrypt", Ours.name, [9, 9, 9], [10, 20, 10]),
        Result("encrypt", "official", [9, 9, 9], [40, 60, 30]),
        Result(PRIMITIVES, Ours.name, [9, 9, 9], [5, 10, 8]),
    ]
    (encrypt,) = summary("crypto", list(rows(results)))
    assert (encrypt["median"], encrypt["rounds"], encrypt["reached"]) == (3, 3, True)
    assert over_primitives(results, "encrypt") == [2, 2, 1.25]


def test_growth_compares_the_largest_store_with_the_smallest() -> None:
    rows = [
        {
            "sessions": size,
            "messages_per_s": speed,
            "peak_memory_mb": {"gateway front": held},
            "own_memory_mb": held / 2 + 5,
        }
        for size, speed, held in ((10, 100, 200), (100, 95, 210), (1_000, 85, 220))
    ]
    kept, memory, own = summary("growth", rows)
    assert (kept["median"], kept["reached"]) == (0.85, False)
    assert memory["median"] == pytest.approx(1.1)
    assert own["median"] == pytest.approx(115 / 105)


@pytest.mark.parametrize(("smaller", "reached"), [(True, True), (False, False)])
def test_a_goal_has_a_direction(smaller: bool, reached: bool) -> None:
    assert Figure("p99", "ms", lambda _: (), 15, smaller=smaller).reached(14) is reached


@pytest.mark.parametrize(
    ("now", "smaller", "fails"),
    [(0.86, False, False), (0.84, False, True), (1.17, True, False), (1.2, True, True)],
)
def test_a_loss_of_more_than_15_percent_fails(now: float, smaller: bool, fails: bool) -> None:
    assert MOST_LOSS == 0.15
    assert Held("any", now, 1.0, smaller).fails is fails


def test_only_what_was_measured_and_has_a_budget_is_held() -> None:
    held = against_budgets({"a": (2.0, False), "new": (1.0, False)}, {"a": 2.5, "gone": 1.0})
    assert [(one.name, one.loss) for one in held] == [("a", pytest.approx(0.2))]


def test_every_workload_says_what_it_is() -> None:
    assert all(workload.what.endswith(".") for workload in ALL.values())
