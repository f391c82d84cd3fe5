"""The gateway's side of one Receive stream.

    OPENING ──open──▶ CATCHING_UP ──backlog given──▶ LIVE
       │                   │                          │
       │                   └────────── drain ─────────┤
       │                                              ▼
       │                                          DRAINING
       │                                              │ grace over, or nothing is out
       ▼                                              ▼
       └───────────────────────────────────────▶  CLOSED ◀── half-close, replaced, lost

Rules: the first frame opens, all others say what became of events; CAUGHT_UP is said once, when
everything is given that waited when the stream was opened; a draining stream gives nothing more and
takes such frames until its grace is over. Nothing comes after CLOSED.

Compares positions (sequence numbers of the inbox); which events are out, and how many may be, is in
`letterlockd.streams.leases`. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace

from letterlockd.streams.rules import Frame, find

__all__ = [
    "AcksFrame",
    "Action",
    "DrainOrdered",
    "Emptied",
    "Event",
    "ExtensionsFrame",
    "Finish",
    "GraceOver",
    "HalfClosed",
    "Lost",
    "NacksFrame",
    "OpenFrame",
    "Reached",
    "ReceiveState",
    "ReceiveStream",
    "RefuseReplaced",
    "Replaced",
    "SayCaughtUp",
    "SayDraining",
    "SayOpened",
    "TakeIn",
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
    """The caller opens: `backlog_end` is the inbox position below which everything waited when the
    frame came."""

    backlog_end: int
    name = "open"


@dataclass(frozen=True, slots=True)
class AcksFrame(Frame):
    """The caller acknowledges events."""

    name = "acks"


@dataclass(frozen=True, slots=True)
class NacksFrame(Frame):
    """The caller gives events back."""

    name = "nacks"


@dataclass(frozen=True, slots=True)
class ExtensionsFrame(Frame):
    """The caller still works on events."""

    name = "extensions"


@dataclass(frozen=True, slots=True)
class UnknownFrame(Frame):
    """The caller sends a frame that this version does not know, or an empty one."""


@dataclass(frozen=True, slots=True)
class HalfClosed:
    """The caller acknowledges no more."""


@dataclass(frozen=True, slots=True)
class Reached:
    """Every event below inbox position `position` is given or gone."""

    position: int


@dataclass(frozen=True, slots=True)
class Emptied:
    """Nothing is out on the stream, and nothing waits for a commit."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A newer stream of the same consumer was opened."""


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
    | NacksFrame
    | ExtensionsFrame
    | UnknownFrame
    | HalfClosed
    | Reached
    | Emptied
    | Replaced
    | DrainOrdered
    | GraceOver
    | Lost
)


@dataclass(frozen=True, slots=True)
class SayOpened:
    """Answer the opening frame."""


@dataclass(frozen=True, slots=True)
class TakeIn:
    """Do what the frame says of events."""


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


Action = SayOpened | TakeIn | SayCaughtUp | SayDraining | Finish | RefuseReplaced


@dataclass(frozen=True, slots=True)
class ReceiveStream:
    """A Receive stream: its state, and where its backlog ends."""

    state: ReceiveState = ReceiveState.OPENING
    backlog_end: int = 0

    @property
    def gives(self) -> bool:
        """Whether events may be given now."""
        return self.state in (ReceiveState.CATCHING_UP, ReceiveState.LIVE)


Stepped = tuple[ReceiveStream, tuple[Action, ...]]


def step(stream: ReceiveStream, event: Event) -> Stepped:
    """The next stream and what to do. Raises `UnexpectedFrame` for a frame that may not come now,
    `BrokenInvariant` for any other pair that the table does not hold; nothing changes then."""
    return find(TRANSITIONS, stream.state, event)(stream, event)


def _opened(_: ReceiveStream, event: OpenFrame) -> Stepped:
    return ReceiveStream(ReceiveState.CATCHING_UP, event.backlog_end), (SayOpened(),)


def _take_in(stream: ReceiveStream, _: Frame) -> Stepped:
    return stream, (TakeIn(),)


def _reached(stream: ReceiveStream, event: Reached) -> Stepped:
    if event.position < stream.backlog_end:
        return stream, ()
    return replace(stream, state=ReceiveState.LIVE), (SayCaughtUp(),)


def _drain(stream: ReceiveStream, _: DrainOrdered) -> Stepped:
    return replace(stream, state=ReceiveState.DRAINING), (SayDraining(),)


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
_WORK = (AcksFrame, NacksFrame, ExtensionsFrame)
TRANSITIONS: dict[tuple[object, type], Callable[..., Stepped]] = {
    (_S.OPENING, OpenFrame): _opened,
    (_S.OPENING, DrainOrdered): _drain,
    (_S.CATCHING_UP, Reached): _reached,
    (_S.LIVE, Reached): _ignored,
    **{(state, frame): _take_in for state in (*_OPEN, _S.DRAINING) for frame in _WORK},
    **{(state, Emptied): _ignored for state in _OPEN},
    **{(state, Replaced): _replaced for state in _NOT_CLOSED},
    **{(state, DrainOrdered): _drain for state in _OPEN},
    (_S.DRAINING, Reached): _ignored,
    (_S.DRAINING, Emptied): _finish,
    (_S.DRAINING, DrainOrdered): _ignored,
    (_S.DRAINING, GraceOver): _finish,
    **{(state, HalfClosed): _finish for state in _NOT_CLOSED},
    **{(state, Lost): _lost for state in _NOT_CLOSED},
    **{
        (_S.CLOSED, event): _ignored
        for event in (
            *(OpenFrame, *_WORK, HalfClosed, Reached, Emptied, Replaced),
            *(DrainOrdered, GraceOver, Lost),
        )
    },
}
