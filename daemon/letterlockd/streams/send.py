"""The gateway's side of one Send stream.

    OPENING ──open──▶ READING ──pause level──▶ PAUSED
       │                │  ▲ ◀──resume level──── │
       │                │                        │
       │       half-close / drain        half-close / drain
       │                ▼                        ▼
       │          FINISHING or DRAINING ◀────────┘
       │                │ last answer is out
       ▼                ▼
       └────────────▶ CLOSED ◀── lost, from everywhere

Rules: the first frame opens, all others bring messages; what was taken in and is not answered is
bounded; after a half-close everything open is answered, then the stream ends well; a draining
stream takes in nothing, also not the frame that was on its way (the caller repeats it elsewhere
under the same keys). Nothing comes after CLOSED.

Counts messages; knows neither their content nor what becomes of them. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from letterlockd.limits import MAX_UNANSWERED, PAUSE_UNANSWERED, RESUME_UNANSWERED
from letterlockd.streams import credit as credit_rules
from letterlockd.streams.credit import Credit, Gave, Took
from letterlockd.streams.rules import Frame, find

__all__ = [
    "Action",
    "Answered",
    "BatchFrame",
    "DrainOrdered",
    "Event",
    "Finish",
    "HalfClosed",
    "Lost",
    "OpenFrame",
    "SayDraining",
    "SayOpened",
    "SendState",
    "SendStream",
    "StartReading",
    "StopReading",
    "TakeIn",
    "UnknownFrame",
    "step",
]


class SendState(enum.Enum):
    """Where the stream stands; the value is what an error calls it."""

    OPENING = "not open yet"
    READING = "open"
    PAUSED = "paused"
    FINISHING = "half-closed"
    DRAINING = "draining"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class OpenFrame(Frame):
    """The caller opens."""

    name = "open"


@dataclass(frozen=True, slots=True)
class BatchFrame(Frame):
    """The caller sends `count` messages."""

    count: int
    name = "batch"


@dataclass(frozen=True, slots=True)
class UnknownFrame(Frame):
    """The caller sends a frame that this version does not know, or an empty one."""


@dataclass(frozen=True, slots=True)
class HalfClosed:
    """The caller sends no more."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers to `count` messages are written to the stream."""

    count: int


@dataclass(frozen=True, slots=True)
class DrainOrdered:
    """The process is about to stop."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is gone, the caller cancelled, or its token was revoked."""


Event = OpenFrame | BatchFrame | UnknownFrame | HalfClosed | Answered | DrainOrdered | Lost


@dataclass(frozen=True, slots=True)
class SayOpened:
    """Answer the opening frame."""


@dataclass(frozen=True, slots=True)
class TakeIn:
    """Work on the frame's `count` messages and answer each once."""

    count: int


@dataclass(frozen=True, slots=True)
class StopReading:
    """Leave further frames to flow control."""


@dataclass(frozen=True, slots=True)
class StartReading:
    """Read again."""


@dataclass(frozen=True, slots=True)
class SayDraining:
    """Tell the caller that the process is about to stop; read no more."""


@dataclass(frozen=True, slots=True)
class Finish:
    """End the stream with OK."""


Action = SayOpened | TakeIn | StopReading | StartReading | SayDraining | Finish


@dataclass(frozen=True, slots=True)
class SendStream:
    """A Send stream: its state and how many messages are taken in and not answered."""

    state: SendState = SendState.OPENING
    unanswered: Credit = field(
        default_factory=lambda: Credit(MAX_UNANSWERED, PAUSE_UNANSWERED, RESUME_UNANSWERED)
    )


Stepped = tuple[SendStream, tuple[Action, ...]]


def step(stream: SendStream, event: Event) -> Stepped:
    """The next stream and what to do. Raises `UnexpectedFrame` for a frame that may not come now,
    `BrokenInvariant` for any other pair that the table does not hold; nothing changes then."""
    return find(TRANSITIONS, stream.state, event)(stream, event)


def _opened(stream: SendStream, _: OpenFrame) -> Stepped:
    return replace(stream, state=SendState.READING), (SayOpened(),)


def _batch(stream: SendStream, event: BatchFrame) -> Stepped:
    unanswered, full = credit_rules.step(stream.unanswered, Took(event.count))
    taken = TakeIn(event.count)
    if full:
        return SendStream(SendState.PAUSED, unanswered), (taken, StopReading())
    return SendStream(SendState.READING, unanswered), (taken,)


def _answered_open(stream: SendStream, event: Answered) -> Stepped:
    unanswered, resumed = credit_rules.step(stream.unanswered, Gave(event.count))
    if resumed:
        return SendStream(SendState.READING, unanswered), (StartReading(),)
    return SendStream(stream.state, unanswered), ()


def _answered_last(stream: SendStream, event: Answered) -> Stepped:
    unanswered, _ = credit_rules.step(stream.unanswered, Gave(event.count))
    return _finish_when_empty(SendStream(stream.state, unanswered))


def _half_closed(stream: SendStream, _: HalfClosed) -> Stepped:
    return _finish_when_empty(replace(stream, state=SendState.FINISHING))


def _drain(stream: SendStream, _: DrainOrdered) -> Stepped:
    drained, actions = _finish_when_empty(replace(stream, state=SendState.DRAINING))
    return drained, (SayDraining(), *actions)


def _finish_when_empty(stream: SendStream) -> Stepped:
    if stream.unanswered.used:
        return stream, ()
    return replace(stream, state=SendState.CLOSED), (Finish(),)


def _lost(stream: SendStream, _: Lost) -> Stepped:
    return replace(stream, state=SendState.CLOSED), ()


def _ignored(stream: SendStream, _: Event) -> Stepped:
    return stream, ()


_S = SendState
TRANSITIONS: dict[tuple[object, type], Callable[..., Stepped]] = {
    (_S.OPENING, OpenFrame): _opened,
    (_S.OPENING, HalfClosed): _half_closed,
    (_S.OPENING, DrainOrdered): _drain,
    (_S.READING, BatchFrame): _batch,
    (_S.READING, HalfClosed): _half_closed,
    (_S.READING, Answered): _answered_open,
    (_S.READING, DrainOrdered): _drain,
    (_S.PAUSED, HalfClosed): _half_closed,
    (_S.PAUSED, Answered): _answered_open,
    (_S.PAUSED, DrainOrdered): _drain,
    (_S.FINISHING, Answered): _answered_last,
    (_S.FINISHING, DrainOrdered): _ignored,
    (_S.DRAINING, Answered): _answered_last,
    (_S.DRAINING, BatchFrame): _ignored,
    (_S.DRAINING, HalfClosed): _ignored,
    (_S.DRAINING, DrainOrdered): _ignored,
    **{(state, Lost): _lost for state in _S if state is not _S.CLOSED},
    **{
        (_S.CLOSED, event): _ignored
        for event in (OpenFrame, BatchFrame, HalfClosed, Answered, DrainOrdered, Lost)
    },
}
