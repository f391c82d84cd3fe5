import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st
from letterlockd.model.histogram import LONG_BUCKETS, Histogram


def test_a_duration_is_counted_in_every_bucket_that_it_fits() -> None:
    times = Histogram((0.1, 1.0))
    for seconds in (0.1, 0.5, 0.5, 5):
        times.observe(seconds)
    assert times.read() == ([("0.1", 1.0), ("1.0", 3.0), ("+Inf", 4.0)], 0.1 + 0.5 + 0.5 + 5)
    times.observe(0)
    assert times.read()[0] == [("0.1", 2.0), ("1.0", 4.0), ("+Inf", 5.0)]


def test_a_clock_that_was_set_back_makes_no_negative_duration() -> None:
    times = Histogram()
    times.observe(-3_600)
    buckets, total = times.read()
    assert total == 0
    assert buckets[0][1] == 1


def test_nothing_is_lost_between_the_loop_and_who_asks() -> None:
    times, done = Histogram(), threading.Event()

    def ask() -> list[float]:
        asked = []
        while not done.is_set():
            asked.append(times.read()[0][-1][1])
        return asked

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        for _ in range(20_000):
            times.observe(0.01)
        done.set()
        asked = asking.result()
    assert asked == sorted(asked)
    assert times.read()[0][-1][1] == 20_000


@given(st.lists(st.floats(0, 1e6)))
def test_buckets_never_fall_and_the_last_holds_all(durations: list[float]) -> None:
    times = Histogram(LONG_BUCKETS)
    for duration in durations:
        times.observe(duration)
    counts = [count for _, count in times.read()[0]]
    assert counts == sorted(counts)
    assert counts[-1] == len(durations)
