from __future__ import annotations

from letterlockd.uplink.backoff import Backoff


def test_waits_double_up_to_a_ceiling_and_start_again_after_success() -> None:
    backoff = Backoff(lambda: 1.0)
    waits = [backoff.next_seconds() for _ in range(12)]
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(waits) == waits[-1] == 15.0
    backoff.succeeded()
    assert backoff.next_seconds() == 0.1


def test_jitter_never_means_no_wait() -> None:
    backoff = Backoff(lambda: 0.0)
    assert all(backoff.next_seconds() > 0 for _ in range(30))
