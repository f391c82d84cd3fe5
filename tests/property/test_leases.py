"""Streams that share a number, in random histories: acks, nacks, expiries, restarts, streams that
come, go and break. Every event is given or becomes a dead letter, a conversation's order holds, and
no conversation is ever on two streams."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from letterlockd.streams import conversations
from letterlockd.streams import leases as machine
from letterlockd.streams.held import Consumer, Failure, Item, Place
from letterlockd.streams.leases import Leases

USERS, PAGE, ATTEMPTS = 4, 5, 3
ASIDE, WAITING, IN_CONVERSATION, REMEMBERED = 6, 10, 3, 200


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that short histories reach."""
    monkeypatch.setattr(conversations, "MAX_SET_ASIDE", ASIDE)
    monkeypatch.setattr(conversations, "MAX_WAITING_IN_CONVERSATION", IN_CONVERSATION)
    monkeypatch.setattr(machine, "MAX_WAITING", WAITING)
    monkeypatch.setattr(machine, "MAX_REMEMBERED", REMEMBERED)


class History(RuleBasedStateMachine):
    """The store is a list of (conversation, poisoned); an event's id is its number in it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000
        self.leases = Leases(ATTEMPTS)
        self.events: list[bytes] = []
        self.done: set[str] = set()
        self.dead: dict[str, int] = {}
        self.given: set[str] = set()
        self.streams: list[Consumer] = []
        self.settling: dict[Consumer, list[Item]] = {}
        self.reading: tuple[int, list[Item], int] | None = None

    def page(self, start: int) -> tuple[int, list[Item], int]:
        found = [n for n in range(start, len(self.events)) if str(n) not in self.gone][:PAGE]
        items = [Item(str(n), Place(n, 0, 1), self.events[n], 10) for n in found]
        return start, items, found[-1] + 1 if len(found) == PAGE else len(self.events)

    @property
    def gone(self) -> set[str]:
        return self.done | self.dead.keys()

    def commit(self, items: list[Item]) -> None:
        self.done |= {item.event_id for item in items if not item.dying}
        for item in items:
            if item.dying:
                assert item.failures >= ATTEMPTS, "given up too early"
                self.dead[item.event_id] = item.failures
        self.leases.settled(items)

    @rule(users=st.lists(st.integers(0, USERS - 1), min_size=1, max_size=8))
    def arrive(self, users: list[int]) -> None:
        self.events += [b"%d" % user for user in users]

    @precondition(lambda self: len(self.streams) < 4)
    @rule(window=st.integers(1, 6), size=st.sampled_from([25, 1_000]), new=st.booleans())
    def opens(self, window: int, size: int, new: bool) -> None:
        stream = Consumer(window, size, 50, len(self.events) if new and self.streams else 0)
        self.leases.attach(stream)
        self.streams.append(stream)
        self.settling[stream] = []

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def takes(self, data: st.DataObject) -> None:
        self.give(data.draw(st.sampled_from(self.streams)))

    def give(self, stream: Consumer) -> list[Item]:
        if self.leases.wants and self.reading is None and stream.has_room:
            self.leases.read(*self.page(self.leases.begin_reading()))
        before = stream.used
        taken = self.leases.take(stream, self.now, limit=4, max_bytes=30)
        assert len(taken) <= max(0, stream.window - before)
        for item in taken:
            assert item.place.sequence >= stream.start
            self.check_order(item, stream)
            assert item.given == (item.event_id in self.given) or len(self.given) > REMEMBERED
        self.leases.gave(taken)
        self.given |= {item.event_id for item in taken}
        return taken

    def check_order(self, item: Item, stream: Consumer) -> None:
        """All before it in its conversation are done, or on the same stream, or settling."""
        number = int(item.event_id)
        held = {one.event_id: one for one in self.leases._items.values()}
        for earlier in range(stream.start, number):
            name = str(earlier)
            if self.events[earlier] == item.conversation and name not in self.gone:
                assert name in held, f"{name} is passed over by {number}"
                assert held[name].settling or held[name].consumer is stream

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def takes_and_gives_back(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from(self.streams))
        taken = self.leases.take(stream, self.now, limit=3, max_bytes=1_000)
        self.leases.put_back(taken)
        assert not any(item.event_id in stream.leased for item in taken)

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), commits=st.booleans())
    def acks(self, data: st.DataObject, commits: bool) -> None:
        stream = data.draw(st.sampled_from(self.streams))
        ids = data.draw(st.lists(st.sampled_from(sorted(self.given) or ["none"]), max_size=5))
        settled = self.leases.settle([*ids, "unknown", *ids])
        assert len({item.event_id for item in settled}) == len(settled)
        if commits:
            self.commit(settled)
        else:
            self.settling[stream] += settled

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), fails=st.booleans())
    def commits(self, data: st.DataObject, fails: bool) -> None:
        stream = data.draw(st.sampled_from(self.streams))
        items = self.settling[stream] + self.leases.take_dying()
        self.settling[stream] = []
        if fails:
            self.leases.unsettled(items)
        else:
            self.commit(items)

    @precondition(lambda self: any(stream.leased for stream in self.streams))
    @rule(data=st.data(), delay=st.sampled_from([0, 0, 30, 200]))
    def nacks(self, data: st.DataObject, delay: int) -> None:
        stream = data.draw(st.sampled_from([one for one in self.streams if one.leased]))
        ids = data.draw(st.lists(st.sampled_from(sorted(stream.leased)), min_size=1, max_size=3))
        self.leases.nack(stream, [*ids, "unknown"], self.now, delay)
        assert not any(name in stream.leased for name in ids)

    @precondition(lambda self: any(stream.leased for stream in self.streams))
    @rule(data=st.data())
    def extends(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from([one for one in self.streams if one.leased]))
        name = data.draw(st.sampled_from(sorted(stream.leased)))
        self.leases.extend(stream, [name], self.now, 40)
        assert stream.leased[name].deadline_ms == self.now + 40

    @rule(step=st.sampled_from([1, 30, 60, 500]))
    def time_passes(self, step: int) -> None:
        self.now += step
        self.leases.tick(self.now)
        for stream in self.streams:
            assert all(item.deadline_ms > self.now for item in stream.leased.values())

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), lost=st.booleans())
    def ends(self, data: st.DataObject, lost: bool) -> None:
        stream = data.draw(st.sampled_from(self.streams))
        self.streams.remove(stream)
        self.leases.unsettled(self.settling.pop(stream))
        self.leases.detach(stream, self.now, lost=lost)
        assert (stream.leased, stream.ready) == ({}, {})

    @precondition(lambda self: self.streams and self.leases.wants and self.reading is None)
    @rule()
    def begins_to_read(self) -> None:
        self.reading = self.page(self.leases.begin_reading())

    @precondition(lambda self: self.reading is not None)
    @rule()
    def has_read(self) -> None:
        assert self.reading is not None
        self.leases.read(*self.reading)
        self.reading = None

    @rule()
    def restarts(self) -> None:
        """Everything in memory is gone; what was committed is not."""
        self.leases = Leases(ATTEMPTS)
        self.streams, self.settling, self.reading = [], {}, None
        self.given = set()

    @invariant()
    def holds(self) -> None:
        leases = self.leases
        owner: dict[bytes, Consumer] = {}
        for stream in self.streams:
            out = [one for one in leases._items.values() if one.consumer is stream]
            assert stream.used == len(out) <= stream.window
            assert stream.used_bytes == sum(one.size for one in out)
            for item in out:
                assert owner.setdefault(item.conversation, stream) is stream, "on two streams"
        held = leases._conversations
        assert held.waiting == sum(len(one.waiting) for one in held)
        windows = sum(stream.window for stream in self.streams)
        assert len(leases._items) <= WAITING + 2 * PAGE + 6 * 4 * 4 + windows
        for one in held:
            assert one.waiting or one.out, "an empty conversation is kept"
            assert list(one.waiting) == sorted(one.waiting, key=lambda item: item.place)
            assert (one in held._delayed) == bool(one.waiting and one.waiting[0].due_ms)

    def teardown(self) -> None:
        """Whatever happened: one stream that works gets everything that is left, and the end."""
        for stream in self.streams:
            self.leases.unsettled(self.settling.pop(stream))
            self.leases.detach(stream, self.now, lost=False)
        self.reading = None
        stream = Consumer(3, 1_000, 50, 0)
        self.leases.attach(stream)
        for _ in range(10 * len(self.events) + 10):
            self.leases.tick(self.now)
            self.commit(self.leases.settle([item.event_id for item in self.give(stream)]))
            self.commit(self.leases.take_dying())
            self.now += 100
        assert self.gone == {str(number) for number in range(len(self.events))}
        assert not self.leases._items
        assert not len(self.leases._conversations)
        assert self.leases.caught_up_to(stream) == len(self.events)
        assert self.leases.next_tick_ms is None or self.leases.tick(1 << 50) is False


TestLeases = History.TestCase
TestLeases.settings = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def consumer(leases: Leases, window: int = 100) -> Consumer:
    found = Consumer(window, 1 << 40, 60_000, 0)
    leases.attach(found)
    return found


def give(leases: Leases, stream: Consumer, *events: tuple[int, bytes], now: int = 0) -> list[str]:
    if events:
        items = [Item(f"{n}", Place(n, 0, 1), user, 10) for n, user in events]
        leases.read(leases.begin_reading(), items, events[-1][0] + 1)
    taken = leases.take(stream, now, limit=100, max_bytes=1 << 30)
    leases.gave(taken)
    return [item.event_id for item in taken]


def test_a_poisoned_event_dies_and_its_conversation_goes_on() -> None:
    leases = Leases(3)
    stream = consumer(leases)
    assert give(leases, stream, (1, b"a"), (2, b"a"), (3, b"b")) == ["1", "2", "3"]
    for attempt in (1, 2):
        leases.nack(stream, ["1"], 0, 0)
        assert give(leases, stream) == ["1", "2"]
        assert stream.leased["1"].failures == attempt
    leases.nack(stream, ["1"], 0, 0)
    (dead,) = leases.take_dying()
    assert (dead.event_id, dead.failures, dead.last_failure) == ("1", 3, Failure.NACKED)
    assert give(leases, stream) == ["2"]
    assert stream.leased["2"].failures == 0, "charged for another's failure"


def test_a_consumer_that_dies_of_an_event_is_charged_to_it_alone() -> None:
    leases = Leases(2)
    for attempt in range(2):
        stream = consumer(leases)
        given = give(leases, stream, *([(1, b"a"), (2, b"a")] if attempt == 0 else []))
        if attempt:
            leases.read(leases.begin_reading(), [Item("1", Place(1, 0, 1), b"a", 10)], 3)
            leases.go_back(0)
            leases.read(
                leases.begin_reading(),
                [Item(f"{n}", Place(n, 0, 1), b"a", 10) for n in (1, 2)],
                3,
            )
            given = give(leases, stream)
        assert given == ["1", "2"]
        leases.detach(stream, 0, lost=True)
    assert [item.event_id for item in leases.take_dying()] == ["1"]
    assert leases._past == {"2": (0, None, 0)}


def test_a_delay_holds_its_conversation_and_no_other() -> None:
    leases = Leases(5)
    stream = consumer(leases)
    give(leases, stream, (1, b"a"), (2, b"b"))
    leases.nack(stream, ["1"], 0, 5_000)
    assert give(leases, stream, (3, b"a"), (4, b"b")) == ["4"]
    assert leases.next_tick_ms == 5_000
    assert not leases.tick(4_999)
    assert leases.tick(5_000)
    assert give(leases, stream) == ["1", "3"]


def test_streams_share_and_a_conversation_sticks_while_it_is_worked_on() -> None:
    leases = Leases(5)
    one, two = consumer(leases, 1), consumer(leases, 2)
    assert give(leases, one, (1, b"a"), (2, b"a"), (3, b"b")) == ["1"]
    assert give(leases, two) == ["3"]
    leases.settled(leases.settle(["1"]))
    assert give(leases, two) == ["2"]
    assert give(leases, one, (4, b"a")) == []
    leases.settled(leases.settle(["2"]))
    assert give(leases, one) == ["4"]


def test_a_late_acknowledgement_counts_as_long_as_the_event_is_held() -> None:
    leases = Leases(5)
    one, two = consumer(leases), consumer(leases)
    give(leases, one, (1, b"a"))
    assert leases.tick(60_000)
    assert [item.event_id for item in leases.settle(["1"])] == ["1"]
    assert give(leases, two) == []
    leases.nack(two, ["1"], 0, 0)
    assert leases.settle(["1"]) == []


def test_bytes_bound_what_is_out() -> None:
    leases = Leases(5)
    stream = Consumer(100, 25, 60_000, 0)
    leases.attach(stream)
    assert give(leases, stream, *[(n, b"%d" % n) for n in range(6)]) == ["0", "1", "2"]
    leases.settled(leases.settle(["1"]))
    assert give(leases, stream) == ["3"]


def test_an_ungiven_event_is_neither_charged_nor_acknowledged() -> None:
    leases = Leases(1)
    stream = consumer(leases)
    leases.read(leases.begin_reading(), [Item("1", Place(1, 0, 1), b"a", 10)], 2)
    leases.take(stream, 0, limit=1, max_bytes=1)
    assert leases.settle(["1"]) == []
    leases.detach(stream, 0, lost=True)
    assert leases.take_dying() == []


def test_what_was_read_for_streams_that_ended_is_not_given_before_what_came_earlier() -> None:
    leases = Leases(3)
    first = consumer(leases)
    assert give(leases, first, (1, b"a"), (2, b"a")) == ["1", "2"]
    start = leases.begin_reading()
    leases.detach(first, 0, lost=True)
    leases.read(start, [Item("3", Place(3, 0, 1), b"a", 10)], 4)
    second = consumer(leases)
    assert give(leases, second) == []
    assert leases.wants
    assert give(leases, second, *[(n, b"a") for n in (1, 2, 3)]) == ["1", "2", "3"]


def test_a_stream_that_starts_earlier_gets_what_was_forgotten_before_what_was_read() -> None:
    leases = Leases(3)
    first = consumer(leases, window=1)
    assert give(leases, first, (1, b"a"), (2, b"a"), (3, b"a")) == ["1"]
    later = Consumer(100, 1 << 40, 60_000, 5)
    leases.attach(later)
    leases.detach(first, 0, lost=False)
    assert give(leases, later) == []
    second = consumer(leases)
    assert give(leases, second) == []
    assert give(leases, second, *[(n, b"a") for n in (1, 2, 3)]) == ["1", "2", "3"]


def test_a_stream_that_ends_gives_back_what_a_failed_commit_brought_late() -> None:
    leases = Leases(3)
    first = consumer(leases)
    assert give(leases, first, (1, b"a"), (2, b"a")) == ["1", "2"]
    settled = leases.settle(["1"])
    leases.nack(first, ["2"], 0, 0)
    assert give(leases, first) == ["2"]
    leases.unsettled(settled)
    assert give(leases, first) == ["1"]
    leases.detach(first, 0, lost=True)
    assert (first.leased, first.used) == ({}, 0)
    assert give(leases, consumer(leases), (1, b"a"), (2, b"a")) == ["1", "2"]


def test_a_stream_that_starts_earlier_gets_what_is_only_now_read_before_what_waits() -> None:
    leases = Leases(3)
    early, late = Consumer(9, 1 << 40, 50, 5), Consumer(9, 1 << 40, 50, 7)
    leases.attach(early)
    leases.attach(late)
    leases.read(leases.begin_reading(), [Item("6", Place(6, 0, 1), b"a", 10)], 7)
    assert give(leases, late) == []
    assert give(leases, consumer(leases), *[(n, b"a") for n in (1, 6)]) == ["1", "6"]


def test_a_stream_gets_nothing_from_before_its_start_though_the_conversation_is_its() -> None:
    leases = Leases(3)
    late = Consumer(9, 1 << 40, 50, 5)
    leases.attach(late)
    assert give(leases, late, (6, b"a")) == ["6"]
    early = consumer(leases)
    assert give(leases, early, (1, b"a")) == []
    assert give(leases, late) == []
    leases.settled(leases.settle(["6"]))
    assert give(leases, late) == []
    assert give(leases, early) == ["1"]
