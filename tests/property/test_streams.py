"""The stream machines: every pair of state and event, and random histories that keep the rules."""

from __future__ import annotations

import dataclasses
import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from letterlockd.errors import BrokenInvariant, LetterlockError
from letterlockd.limits import MAX_BATCH_MESSAGES, MAX_UNANSWERED
from letterlockd.streams import credit, receive, send
from letterlockd.streams.credit import Credit
from letterlockd.streams.rules import Frame, UnexpectedFrame

RECEIVE_EVENTS = {
    receive.OpenFrame: receive.OpenFrame(10),
    receive.Reached: receive.Reached(10),
}
SEND_EVENTS = {send.BatchFrame: send.BatchFrame(1), send.Answered: send.Answered(1)}


def example(kind: type, known: dict[type, object]) -> object:
    return known[kind] if kind in known else kind()


def send_streams() -> list[send.SendStream]:
    return [
        send.SendStream(state, dataclasses.replace(send.SendStream().unanswered, used=used))
        for state in send.SendState
        for used in (0, 1, 2)
    ]


def receive_streams() -> list[receive.ReceiveStream]:
    return [receive.ReceiveStream(state, 10) for state in receive.ReceiveState]


ALL_PAIRS = [
    (machine, stream, example(kind, known))
    for machine, streams, known in (
        (send, send_streams(), SEND_EVENTS),
        (receive, receive_streams(), RECEIVE_EVENTS),
    )
    for stream in streams
    for kind in typing.get_args(machine.Event)
]


@pytest.mark.parametrize(("machine", "stream", "event"), ALL_PAIRS)
def test_every_pair_moves_or_is_refused_by_whose_fault_it_is(machine, stream, event) -> None:
    if (stream.state, type(event)) in machine.TRANSITIONS:
        try:
            after, actions = machine.step(stream, event)
        except BrokenInvariant:  # counts that cannot be: more answers than messages
            assert isinstance(event, send.Answered)
            return
        assert isinstance(after, type(stream))
        assert all(isinstance(action, typing.get_args(machine.Action)) for action in actions)
        if stream.state.name == "CLOSED":
            assert (after, actions) == (stream, ())
    else:
        kind = UnexpectedFrame if isinstance(event, Frame) else BrokenInvariant
        with pytest.raises(kind):
            machine.step(stream, event)


@pytest.mark.parametrize("machine", [send, receive])
def test_the_table_names_only_states_and_events_that_exist(machine) -> None:
    states = {"send": send.SendState, "receive": receive.ReceiveState}
    state_type = states[machine.__name__.rpartition(".")[2]]
    for state, event in machine.TRANSITIONS:
        assert isinstance(state, state_type)
        assert event in typing.get_args(machine.Event)


@pytest.mark.parametrize("machine", [send, receive])
def test_an_unknown_frame_is_refused_in_every_state(machine) -> None:
    for stream in send_streams() if machine is send else receive_streams():
        with pytest.raises(UnexpectedFrame):
            machine.step(stream, machine.UnknownFrame())


@pytest.mark.parametrize(
    ("now", "event", "actions"),
    [
        (Credit(10, 8, 6, used=7), credit.Took(0), ()),
        (Credit(10, 8, 6, used=7), credit.Took(1), (credit.Pause(),)),
        (Credit(10, 8, 6, used=7), credit.Took(3), (credit.Pause(),)),
        (Credit(10, 8, 6, 8, credit.CreditState.FULL), credit.Gave(1), ()),
        (Credit(10, 8, 6, 8, credit.CreditState.FULL), credit.Gave(2), (credit.Resume(),)),
        (Credit(1, 1, 0, 1, credit.CreditState.FULL), credit.Gave(1), (credit.Resume(),)),
    ],
)
def test_credit_pauses_and_resumes_at_its_levels(now, event, actions) -> None:
    assert credit.step(now, event)[1] == actions


@given(
    limit=st.integers(1, 20),
    moves=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=100),
)
def test_credit_never_passes_its_limit_and_pauses_in_turns(limit, moves) -> None:
    now = Credit.window(limit)
    paused = False
    for takes, count in moves:
        event = credit.Took(count) if takes else credit.Gave(count)
        try:
            now, actions = credit.step(now, event)
        except BrokenInvariant:
            out = now.used + count if takes else now.used - count
            assert paused or not 0 <= out <= limit
            continue
        assert 0 <= now.used <= limit
        for action in actions:
            assert paused is isinstance(action, credit.Resume)
            paused = isinstance(action, credit.Pause)
        assert paused is (now.room == 0)


class SendHistory(RuleBasedStateMachine):
    """A stream as it is used: frames only while reading, answers only to what was taken in."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = send.SendStream()
        self.taken = self.answered = 0
        self.said: list[str] = []
        self.half_closed = self.lost = False

    def apply(self, event: send.Event) -> None:
        was_closed = self.stream.state is send.SendState.CLOSED
        self.stream, actions = send.step(self.stream, event)
        assert not (was_closed and actions), "something came after the end"
        for action in actions:
            if isinstance(action, send.TakeIn):
                self.taken += action.count
            self.said.append(type(action).__name__)

    @precondition(lambda self: self.stream.state is send.SendState.OPENING)
    @rule()
    def opens(self) -> None:
        self.apply(send.OpenFrame())

    @precondition(
        lambda self: (
            self.stream.state in (send.SendState.READING, send.SendState.DRAINING)
            and not self.half_closed
        )
    )
    @rule(count=st.integers(1, MAX_BATCH_MESSAGES))
    def sends(self, count: int) -> None:
        self.apply(send.BatchFrame(count))

    @precondition(lambda self: self.taken > self.answered)
    @rule(data=st.data())
    def answers(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, self.taken - self.answered))
        self.apply(send.Answered(count))
        self.answered += count

    @precondition(lambda self: not self.half_closed)
    @rule()
    def half_closes(self) -> None:
        self.half_closed = True
        self.apply(send.HalfClosed())

    @rule()
    def drains(self) -> None:
        self.apply(send.DrainOrdered())

    @rule()
    def refuses_a_second_opening(self) -> None:
        if self.stream.state not in (send.SendState.OPENING, send.SendState.CLOSED):
            before = self.stream
            with pytest.raises(LetterlockError):
                self.apply(send.OpenFrame())
            assert self.stream == before

    @invariant()
    def holds(self) -> None:
        used = self.stream.unanswered.used
        assert 0 <= used <= MAX_UNANSWERED
        if self.stream.state is send.SendState.CLOSED:
            assert self.taken == self.answered, "the end came before the last answer"
            assert self.said.count("Finish") == 1
        else:
            assert used == self.taken - self.answered
            assert "Finish" not in self.said
        if self.stream.state in (send.SendState.FINISHING, send.SendState.DRAINING):
            assert used > 0, "everything is answered, and the end does not come"
        assert self.said.count("SayOpened") <= 1
        assert self.said.count("SayDraining") <= 1
        stops = [name for name in self.said if name in ("StopReading", "StartReading")]
        assert (
            stops
            == ["StopReading", "StartReading"] * (len(stops) // 2) + stops[len(stops) // 2 * 2 :]
        )


class ReceiveHistory(RuleBasedStateMachine):
    """A stream over an inbox of numbered events, with a caller that does with them as it likes."""

    WINDOW, BACKLOG = 4, 3

    def __init__(self) -> None:
        super().__init__()
        self.stream = receive.ReceiveStream()
        self.next = self.out = 0
        self.said: list[str] = []

    def apply(self, event: receive.Event) -> None:
        was_closed = self.stream.state is receive.ReceiveState.CLOSED
        self.stream, actions = receive.step(self.stream, event)
        assert not (was_closed and actions), "something came after the end"
        self.said += [type(action).__name__ for action in actions]

    @precondition(lambda self: self.stream.state is receive.ReceiveState.OPENING)
    @rule()
    def opens(self) -> None:
        self.apply(receive.OpenFrame(self.BACKLOG))

    @precondition(lambda self: self.stream.gives and self.out < self.WINDOW)
    @rule(data=st.data())
    def gives(self, data: st.DataObject) -> None:
        assert "SayDraining" not in self.said
        count = data.draw(st.integers(1, self.WINDOW - self.out))
        self.next += count
        self.out += count
        self.apply(receive.Reached(self.next))

    @precondition(
        lambda self: (
            self.stream.state not in (receive.ReceiveState.OPENING, receive.ReceiveState.CLOSED)
        )
    )
    @rule(
        frame=st.sampled_from([receive.AcksFrame, receive.NacksFrame, receive.ExtensionsFrame]),
        count=st.integers(0, WINDOW),
    )
    def is_done_with_some(self, frame: type[receive.Event], count: int) -> None:
        taken = len(self.said)
        self.apply(frame())
        assert self.said[taken:] == ["TakeIn"]
        if frame is not receive.ExtensionsFrame:
            self.out -= min(count, self.out)
        if not self.out:
            self.apply(receive.Emptied())

    @precondition(lambda self: self.next > self.BACKLOG or self.out > 2)
    @rule()
    def drains(self) -> None:
        self.apply(receive.DrainOrdered())
        if not self.out:
            self.apply(receive.Emptied())

    @precondition(lambda self: "SayDraining" in self.said)
    @rule()
    def grace_ends(self) -> None:
        self.apply(receive.GraceOver())

    @precondition(lambda self: self.next > 2 * self.BACKLOG)
    @rule()
    def is_replaced(self) -> None:
        self.apply(receive.Replaced())

    @invariant()
    def holds(self) -> None:
        caught_up = self.said.count("SayCaughtUp")
        assert caught_up <= 1
        if self.stream.state is receive.ReceiveState.LIVE:
            assert caught_up == 1
            assert self.next >= self.BACKLOG
        if self.stream.state is receive.ReceiveState.CATCHING_UP:
            assert self.next < self.BACKLOG
        if self.stream.state is receive.ReceiveState.DRAINING:
            assert self.out > 0, "nothing is out, and the end does not come"
        ends = [name for name in self.said if name in ("Finish", "RefuseReplaced")]
        assert len(ends) == (self.stream.state is receive.ReceiveState.CLOSED)


def test_the_backlog_is_given_when_its_last_event_is() -> None:
    stream, _ = receive.step(receive.ReceiveStream(), receive.OpenFrame(10))
    assert receive.step(stream, receive.Reached(9)) == (stream, ())
    stream, actions = receive.step(stream, receive.Reached(10))
    assert actions == (receive.SayCaughtUp(),)
    assert receive.step(stream, receive.Reached(11)) == (stream, ())


def test_a_draining_receiver_ends_when_nothing_is_out() -> None:
    stream = receive.ReceiveStream(receive.ReceiveState.LIVE, 10)
    assert receive.step(stream, receive.Emptied()) == (stream, ())
    stream, actions = receive.step(stream, receive.DrainOrdered())
    assert (actions, stream.gives) == ((receive.SayDraining(),), False)
    assert receive.step(stream, receive.Emptied())[1] == (receive.Finish(),)


@pytest.mark.parametrize("state", [s for s in receive.ReceiveState if s.name != "CLOSED"])
def test_a_newer_stream_ends_a_receiver_in_any_state(state: receive.ReceiveState) -> None:
    stream = receive.ReceiveStream(state, 10)
    assert receive.step(stream, receive.Replaced())[1] == (receive.RefuseReplaced(),)


TestSendHistory = SendHistory.TestCase
TestReceiveHistory = ReceiveHistory.TestCase
for _case in (TestSendHistory, TestReceiveHistory):
    _case.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
