"""What all stream machines share: how a pair that no table holds is refused.

Two kinds of fault (whose is it?): a frame of the other side that the stream's rules do not allow
here is theirs, any other unknown pair is a bug of ours. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from letterlockd.errors import BrokenInvariant, InvalidField

Step = TypeVar("Step", bound=Callable[..., object])


class Frame:
    """Base of events that are frames from the other side; `name` is the frame's field."""

    __slots__ = ()
    name = "frame"


class UnexpectedFrame(InvalidField):
    """A frame came where the stream's rules do not allow it."""

    reason = "UNEXPECTED_FRAME"


def find(table: Mapping[tuple[object, type], Step], state: object, event: object) -> Step:
    """The table's entry for a pair. Raises `UnexpectedFrame` when the event is a frame of the other
    side, `BrokenInvariant` when it is one of ours."""
    step = table.get((state, type(event)))
    if step is not None:
        return step
    where = str(getattr(state, "value", state))
    if isinstance(event, Frame):
        raise UnexpectedFrame(event.name, f"this frame may not come while the stream is {where}")
    raise BrokenInvariant(f"{type(event).__name__} in stream state {where}")
