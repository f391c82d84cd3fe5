"""A leg of a message's way on a clock of its own, by what may go wrong there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from letterlockd.legs import Leg, Reading

BOUND = 10.0


def probed() -> Leg:
    return Leg("store", BOUND, probed=True)


def test_nothing_is_proven_before_something_has_come_out() -> None:
    leg = probed()
    assert leg.look(0, Reading(0, 0))
    assert not leg.proven(0)
    assert not leg.look(1, Reading(0, 1))
    assert leg.proven(1)


def test_a_leg_that_nobody_uses_wants_a_probe_before_its_proof_lapses() -> None:
    leg = probed()
    leg.look(0, Reading(0, 1))
    assert not leg.look(4, Reading(0, 1))
    assert leg.look(5, Reading(0, 1))
    assert leg.proven(9.9)
    assert not leg.proven(10)


def test_a_stalled_committer_is_found_within_the_bound_and_its_return_at_the_next_look() -> None:
    leg = probed()
    leg.look(0, Reading(0, 7))
    for now in range(1, 10):
        assert not leg.look(now, Reading(3, 7)), "what waits is the probe"
        assert leg.proven(now)
    leg.look(10, Reading(3, 7))
    assert not leg.proven(10)
    assert (leg.waiting, leg.age_s(10)) == (3, 10)
    leg.look(11, Reading(0, 10))
    assert leg.proven(11)


def test_progress_under_load_is_proof_without_probes() -> None:
    leg = probed()
    for now in range(100):
        assert not leg.look(now, Reading(1_000, 1 + now))
        assert leg.proven(now)


def test_a_relay_that_is_away_answers_no_probe() -> None:
    leg = probed()
    leg.look(0, Reading(0, 1))
    assert [leg.look(now, Reading(0, 1)) for now in (6, 8, 12)] == [True, True, True]
    assert not leg.proven(12)


def test_a_relay_that_is_busy_is_not_proven_by_its_word() -> None:
    """What waits there has to move; the relay says that it is well, which nobody asks then."""
    leg = probed()
    leg.look(0, Reading(1, 1))
    assert not leg.look(20, Reading(1, 1))
    assert not leg.proven(20)


def test_a_full_disk_is_told_until_nothing_was_refused_for_the_bound() -> None:
    leg = Leg("space", BOUND, probed=False)
    leg.look(0, Reading(0, 0, 0))
    assert leg.proven(0)
    leg.look(1, Reading(0, 0, 1))
    leg.look(5, Reading(0, 0, 2))
    assert not leg.proven(5)
    leg.look(14, Reading(0, 0, 2))
    assert not leg.proven(14)
    leg.look(15, Reading(0, 0, 2))
    assert leg.proven(15)


def test_a_queue_without_work_has_nothing_to_prove() -> None:
    leg = Leg("intake", BOUND, probed=False)
    assert not leg.look(0, Reading(0, 0))
    assert not leg.look(100, Reading(0, 0))
    assert leg.proven(100)
    leg.look(101, Reading(5, 0))
    leg.look(110, Reading(5, 0))
    assert not leg.proven(110), "it holds work, and the last time that it held none is too long ago"


readings = st.lists(
    st.tuples(st.floats(0.01, 3), st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)),
    min_size=1,
    max_size=60,
)


@given(readings, st.booleans())
def test_no_leg_is_proven_longer_than_the_bound_after_its_last_sign(
    steps: list[tuple[float, int, int, int]], with_probe: bool
) -> None:
    leg = Leg("any", BOUND, probed=with_probe)
    now, passed, refused = 0.0, 0, 0
    sign = refusal = float("-inf")
    for seconds, waiting, more, fewer in steps:
        now, passed, refused = now + seconds, passed + more, refused + fewer
        due = leg.look(now, Reading(waiting, passed, refused))
        if more or (not with_probe and not waiting):
            sign = now
        refusal = now if fewer else refusal
        assert leg.proven(now) == (now - sign < BOUND and now - refusal >= BOUND)
        assert not (due and (waiting or not with_probe))
        assert due or waiting or now - sign < BOUND, "nothing stands still unasked"
