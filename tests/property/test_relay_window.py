"""The delivery window: never more out than its size, paused at 100 %, resumed at 80 %."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from letterlockd.relay.window import DeliveryWindow


@given(
    size=st.integers(1, 10_000),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 10_000)), max_size=50),
)
def test_room_is_what_is_not_out_and_nothing_while_paused(
    size: int, steps: list[tuple[bool, int]]
) -> None:
    window, out, paused = DeliveryWindow(size), 0, False
    for deliver, count in steps:
        if deliver:
            count = min(count, window.room)
            window.delivered(count)
            out += count
            paused = paused or out == size
        else:
            count = min(count, out)
            window.acknowledged(count)
            out -= count
            paused = paused and out > size * 80 // 100
        assert window.out == out <= size
        assert window.room == (0 if paused else size - out)
    window.acknowledged(out)
    assert window.room == size
