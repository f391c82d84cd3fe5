"""What `keys status` says to people."""

from letterlockd.app.keys import KeyStatus, StoreStatus


def lines(day_keys: int, first_day: str, last_day: str) -> list[str]:
    store = StoreStatus("relay", "k1", 0, day_keys, first_day, last_day)
    return KeyStatus("relay", "relay.key", "file", "k1", False, [store]).lines()


def test_days_are_shown_where_there_are_any() -> None:
    assert lines(0, "", "")[1].endswith("day keys: 0")
    assert lines(2, "2026-01-01", "2026-01-02")[1].endswith(
        "day keys: 2 (2026-01-01 to 2026-01-02)"
    )
