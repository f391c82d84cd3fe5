"""The gateway's side of one Receive stream.

    OPENING ──open──▶ CATCHING_UP ──backlog given──▶ LIVE
       │                   │                          │
       │                   └────────── drain ─────────┤
       │                                              ▼
       │                                          DRAINING
       │                                              │ grace over, or nothing is out
       ▼                                              ▼
       └───────────────────────────────────────▶  CLOSED ◀── half-close, replaced, lost

Rules: the first frame opens, all others acknowledge; never more events out than the window;
CAUGHT_UP is said once, when everything is given that waited when the stream was opened; a draining
stream gives nothing more and takes acknowledgements until its grace is over. An acknowledged event
gives its room back only when that is committed, so that acknowledgements that wait for the store
are bounded by the window as well. Nothing comes after CLOSED.

Counts events and compares positions (sequence numbers of the inbox); which events are out is in
`letterlockd.streams.ledger`. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from letterlockd.limits import DEFAULT_WINDOW
from letterlockd.streams import credit as credit_rules
from letterlockd.streams.credit import Credit, Gave, Took
from letterlockd.streams.rules import Frame, find

__all__ = [
    "Acked",
    "AcksFrame",
    "Action",
    "DrainOrdered",
    "Event",
    "Finish",
    "Given",
    "GraceOver",
    "HalfClosed",
    "Lost",
    "OpenFrame",
    "Reached",
    "ReceiveState",
    "ReceiveStream",
    "RefuseReplaced",
    "Replaced",
    "SayCaughtUp",
    "SayDraining",
    "SayOpened",
    "StartAt",
    "TakeAcks",
    "UnknownFrame",
    "step",
]


class ReceiveState(enum.Enum):
    """Where the stream stands; the value is what an error calls it."""

    OPENING = "not open yet"
    CATCHING_UP = "catching up"
    LIVE = "open"
    DRAINING = "draining"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class OpenFrame(Frame):
    """The caller opens: `window` events at most; `new_only` leaves out what waits already;
    `backlog_end` is the inbox position below which everything waited when the frame came."""

    window: int
    new_only: bool
    backlog_end: int
    name = "open"


@dataclass(frozen=True, slots=True)
class AcksFrame(Frame):
    """The caller acknowledges events."""

    name = "acks"


@dataclass(frozen=True, slots=True)
class UnknownFrame(Frame):
    """The caller sends a frame that this version does not know, or an empty one."""


@dataclass(frozen=True, slots=True)
class HalfClosed:
    """The caller acknowledges no more."""


@dataclass(frozen=True, slots=True)
class Given:
    """`count` events are handed to the stream."""

    count: int


@dataclass(frozen=True, slots=True)
class Reached:
    """Every event below inbox position `position` is given or gone."""

    position: int


@dataclass(frozen=True, slots=True)
class Acked:
    """The acknowledgements of `count` given events are committed."""

    count: int


@dataclass(frozen=True, slots=True)
class Replaced:
    """A newer stream of the same business number was opened."""


@dataclass(frozen=True, slots=True)
class DrainOrdered:
    """The process is about to stop."""


@dataclass(frozen=True, slots=True)
class GraceOver:
    """The time for last acknowledgements is over."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is gone, the caller cancelled, or its token was revoked."""


Event = (
    OpenFrame
    | AcksFrame
    | UnknownFrame
    | HalfClosed
    | Given
    | Reached
    | Acked
    | Replaced
    | DrainOrdered
    | GraceOver
    | Lost
)


@dataclass(frozen=True, slots=True)
class SayOpened:
    """Answer the opening frame with the window in force."""

    window: int


@dataclass(frozen=True, slots=True)
class StartAt:
    """Give events from inbox position `position` on; 0 is the oldest."""

    position: int


@dataclass(frozen=True, slots=True)
class TakeAcks:
    """Commit the frame's acknowledgements."""


@dataclass(frozen=True, slots=True)
class SayCaughtUp:
    """Tell the caller that the backlog is given."""


@dataclass(frozen=True, slots=True)
class SayDraining:
    """Tell the caller that the process is about to stop; give no more events."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Commit the acknowledgements that were taken, then end the stream with OK."""


@dataclass(frozen=True, slots=True)
class RefuseReplaced:
    """End the stream with REPLACED."""


Action = SayOpened | StartAt | TakeAcks | SayCaughtUp | SayDraining | Finish | RefuseReplaced


@dataclass(frozen=True, slots=True)
class ReceiveStream:
    """A Receive stream: its state, its window, and where its backlog ends."""

    state: ReceiveState = ReceiveState.OPENING
    outstanding: Credit = field(default_factory=lambda: Credit.window(DEFAULT_WINDOW))
    backlog_end: int = 0

    @property
    def room(self) -> int:
        """How many events may be given now."""
        giving = self.state in (ReceiveState.CATCHING_UP, ReceiveState.LIVE)
        return self.outstanding.room if giving else 0


Stepped = tuple[ReceiveStream, tuple[Action, ...]]


def step(stream: ReceiveStream, event: Event) -> Stepped:
    """The next stream and what to do. Raises `UnexpectedFrame` for a frame that may not come now,
    `BrokenInvariant` for any other pair that the table does not hold; nothing changes then."""
    return find(TRANSITIONS, stream.state, event)(stream, event)


def _opened(_: ReceiveStream, event: OpenFrame) -> Stepped:
    opened = ReceiveStream(ReceiveState.CATCHING_UP, Credit.window(event.window), event.backlog_end)
    start = StartAt(event.backlog_end if event.new_only else 0)
    return opened, (SayOpened(event.window), start)


def _acks(stream: ReceiveStream, _: AcksFrame) -> Stepped:
    return stream, (TakeAcks(),)


def _given(stream: ReceiveStream, event: Given) -> Stepped:
    outstanding, _ = credit_rules.step(stream.outstanding, Took(event.count))
    return replace(stream, outstanding=outstanding), ()


def _reached(stream: ReceiveStream, event: Reached) -> Stepped:
    if event.position < stream.backlog_end:
        return stream, ()
    return replace(stream, state=ReceiveState.LIVE), (SayCaughtUp(),)


def _acked(stream: ReceiveStream, event: Acked) -> Stepped:
    outstanding, _ = credit_rules.step(stream.outstanding, Gave(event.count))
    return replace(stream, outstanding=outstanding), ()


def _acked_draining(stream: ReceiveStream, event: Acked) -> Stepped:
    acked, _ = _acked(stream, event)
    return _finish_when_empty(acked)


def _drain(stream: ReceiveStream, _: DrainOrdered) -> Stepped:
    drained, actions = _finish_when_empty(replace(stream, state=ReceiveState.DRAINING))
    return drained, (SayDraining(), *actions)


def _finish_when_empty(stream: ReceiveStream) -> Stepped:
    if stream.outstanding.used:
        return stream, ()
    return _finish(stream, None)


def _finish(stream: ReceiveStream, _: object) -> Stepped:
    return replace(stream, state=ReceiveState.CLOSED), (Finish(),)


def _replaced(stream: ReceiveStream, _: Replaced) -> Stepped:
    return replace(stream, state=ReceiveState.CLOSED), (RefuseReplaced(),)


def _lost(stream: ReceiveStream, _: Lost) -> Stepped:
    return replace(stream, state=ReceiveState.CLOSED), ()


def _ignored(stream: ReceiveStream, _: Event) -> Stepped:
    return stream, ()


_S = ReceiveState
_OPEN = (_S.CATCHING_UP, _S.LIVE)
_NOT_CLOSED = tuple(state for state in _S if state is not _S.CLOSED)
TRANSITIONS: dict[tuple[object, type], Callable[..., Stepped]] = {
    (_S.OPENING, OpenFrame): _opened,
    (_S.OPENING, DrainOrdered): _drain,
    (_S.CATCHING_UP, Reached): _reached,
    (_S.LIVE, Reached): _ignored,
    **{(state, AcksFrame): _acks for state in (*_OPEN, _S.DRAINING)},
    **{(state, Given): _given for state in _OPEN},
    **{(state, Acked): _acked for state in _OPEN},
    **{(state, Replaced): _replaced for state in _NOT_CLOSED},
    **{(state, DrainOrdered): _drain for state in _OPEN},
    (_S.DRAINING, Reached): _ignored,
    (_S.DRAINING, Acked): _acked_draining,
    (_S.DRAINING, DrainOrdered): _ignored,
    (_S.DRAINING, GraceOver): _finish,
    **{(state, HalfClosed): _finish for state in _NOT_CLOSED},
    **{(state, Lost): _lost for state in _NOT_CLOSED},
    **{
        (_S.CLOSED, event): _ignored
        for event in (
            *(OpenFrame, AcksFrame, HalfClosed, Reached, Acked, Replaced),
            *(DrainOrdered, GraceOver, Lost),
        )
    },
}
