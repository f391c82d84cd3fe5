"""What is counted of denied calls, and how often the log says so."""

from collections.abc import Callable

import pytest
import structlog
from letterlockd.errors import Forbidden, InvalidField, LetterlockError, Unauthenticated
from letterlockd.rpc.denials import Denials

METHOD = "/test.Test/Unary"


class Later:
    """Stands for the loop: what it was asked to call, and after how long."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append((seconds, call))

    def a_minute_passes(self) -> None:
        ((seconds, call),) = self.calls
        assert seconds == 60
        self.calls.clear()
        call()


@pytest.mark.parametrize(
    ("error", "event"),
    [(Unauthenticated("secret"), "unauthenticated"), (Forbidden("secret"), "forbidden")],
)
def test_a_burst_is_one_line_at_once_and_one_a_minute_with_the_count(
    error: LetterlockError, event: str
) -> None:
    later = Later()
    denials = Denials(later)
    with structlog.testing.capture_logs() as logs:
        for _ in range(1_000):
            denials.note(METHOD, error)
        later.a_minute_passes()
        denials.note(METHOD, error)
        later.a_minute_passes()
        later.a_minute_passes()
        assert later.calls == [], "nothing runs while nobody is denied"
        denials.note(METHOD, error)
    assert [entry["count"] for entry in logs] == [1, 999, 1, 1]
    assert {(entry["event"], entry["log_level"], entry["latest"]) for entry in logs} == {
        (event, "warning", METHOD)
    }
    assert "secret" not in str(logs)
    assert getattr(denials.counters, event) == 1_002


def test_what_is_no_denial_is_passed_over_and_a_group_is_looked_into() -> None:
    denials = Denials(Later())
    denials.note(METHOD, InvalidField("field", "limit"))
    denials.note(METHOD, ValueError("bug"))
    assert (denials.counters.unauthenticated, denials.counters.forbidden) == (0, 0)
    denials.note(METHOD, ExceptionGroup("tasks", [Unauthenticated("removed")]))
    assert denials.counters.unauthenticated == 1
