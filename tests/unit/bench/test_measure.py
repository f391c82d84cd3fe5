"""The arithmetic of the benchmark harness: medians, ratios, losses."""

from __future__ import annotations

import pytest

from bench.measure import Spread, loss, quantile, ratio


def test_spread_is_the_median_with_its_deciles() -> None:
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(median=3, p10=1.4, p90=4.6, rounds=5)


def test_spread_of_one_round_has_no_width() -> None:
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 1)


@pytest.mark.parametrize(("share", "value"), [(0.5, 51), (0.99, 100), (1.0, 100)])
def test_quantile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert quantile(range(1, 101), share) == value


def test_ratio_pairs_rounds_so_that_a_slow_moment_falls_on_both() -> None:
    assert ratio([100, 50, 100], [50, 25, 50]) == [2, 2, 2]


@pytest.mark.parametrize(
    ("now", "before", "smaller", "lost"),
    [(80, 100, False, 0.2), (120, 100, False, -0.2), (125, 100, True, 0.2), (80, 100, True, -0.25)],
)
def test_loss_is_the_share_of_speed_that_is_gone(
    now: float, before: float, smaller: bool, lost: float
) -> None:
    assert loss(now, before, smaller=smaller) == pytest.approx(lost)
