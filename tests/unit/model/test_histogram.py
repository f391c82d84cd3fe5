from hypothesis import given
from hypothesis import strategies as st
from letterlockd.model.histogram import LONG_BUCKETS, Histogram


def test_a_duration_is_counted_in_every_bucket_that_it_fits() -> None:
    times = Histogram((0.1, 1.0))
    times.observe(0.1)
    times.observe(0.5, 2)
    times.observe(5)
    assert times.buckets() == [("0.1", 1.0), ("1.0", 3.0), ("+Inf", 4.0)]
    assert times.total == 0.1 + 2 * 0.5 + 5


def test_a_clock_that_was_set_back_makes_no_negative_duration() -> None:
    times = Histogram()
    times.observe(-3_600)
    assert times.total == 0
    assert times.buckets()[0][1] == 1


@given(st.lists(st.floats(0, 1e6)))
def test_buckets_never_fall_and_the_last_holds_all(durations: list[float]) -> None:
    times = Histogram(LONG_BUCKETS)
    for duration in durations:
        times.observe(duration)
    counts = [count for _, count in times.buckets()]
    assert counts == sorted(counts)
    assert counts[-1] == len(durations)
