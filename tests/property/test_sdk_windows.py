"""The pure halves of the SDK's streams, under every history: nothing lost, nothing told twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from letterlock.business.receiving import AckWindow
from letterlock.business.sending import MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, SendWindow
from letterlock.v1 import errors_pb2, messaging_pb2

moves = st.sampled_from(["admit", "take", "answer", "drain", "lost"])
steps = st.lists(st.tuples(moves, st.integers(1, 7)))


@given(steps)
def test_every_admitted_message_is_told_once_and_written_in_order(
    history: list[tuple[str, int]],
) -> None:
    window = SendWindow(limit=10)
    admitted: list[str] = []
    told: list[str] = []
    on_stream: list[str] = []
    for what, count in history:
        if what == "admit":
            for _ in range(count):
                if not window.is_full:
                    key = f"k{len(admitted)}"
                    window.admit(messaging_pb2.OutgoingMessage(idempotency_key=key))
                    admitted.append(key)
        elif what == "take":
            on_stream += [message.idempotency_key for message in window.take(count)]
        elif what in ("answer", "drain"):
            answered, on_stream = on_stream[:count], on_stream[count:]
            for key in answered:
                result = messaging_pb2.SendResult(idempotency_key=key)
                if what == "answer":
                    result.accepted.message_id = "m"
                else:
                    result.refused.reason = errors_pb2.ERROR_REASON_DRAINING
                if window.answer(result):
                    told.append(key)
        else:
            window.lost()
            on_stream = []
        assert len(window) <= 10
        assert on_stream == sorted(on_stream, key=admitted.index)
    window.lost()
    while window.has_work:
        for message in window.take(3):
            key = message.idempotency_key
            assert window.answer(messaging_pb2.SendResult(idempotency_key=key))
            told.append(key)
    assert sorted(told) == sorted(admitted)
    assert not len(window)


@given(st.lists(st.integers(0, 260_000), max_size=60))
def test_batches_keep_both_limits(sizes: list[int]) -> None:
    window = SendWindow(limit=100)
    for number, size in enumerate(sizes):
        message = messaging_pb2.OutgoingMessage(idempotency_key=str(number))
        message.content.text.body = "x" * size
        window.admit(message)
    taken = 0
    while window.has_work:
        batch = window.take(MAX_BATCH_MESSAGES)
        assert 1 <= len(batch) <= MAX_BATCH_MESSAGES
        assert sum(message.ByteSize() for message in batch) <= MAX_BATCH_BYTES
        taken += len(batch)
    assert taken == len(sizes)


def test_leases_are_renewed_for_a_while_and_not_where_they_are_longer() -> None:
    window = AckWindow(window=5, hold=100.0)
    for name, since in (("old", 0.0), ("young", 90.0), ("long", 90.0), ("done", 90.0)):
        assert window.offer(name, "u", since)
    window.extend("long", 300.0, 95.0)
    frame = window.take()
    assert frame is not None
    assert (list(frame.extensions.event_ids), frame.extensions.lease.seconds) == (["long"], 300)
    window.ack("done")
    window.renew(100.0, 60.0)
    frames = [window.take(), window.take(), window.take()]
    assert [list(one.acks.event_ids) for one in frames if one and one.HasField("acks")] == [
        ["done"]
    ]
    assert [list(one.extensions.event_ids) for one in frames if one and not one.acks.event_ids] == [
        ["young"]
    ]
    assert frames[-1] is None


def test_a_nacked_event_is_handed_out_again_and_its_nack_dies_with_the_stream() -> None:
    window = AckWindow(window=5, hold=100.0)
    assert window.offer("a", "u", 0.0)
    assert window.nack("a", "u", 1.5)
    assert not window.nack("a", "u", 1.5)
    window.ack("a")
    assert not window.is_idle
    window.lost()
    assert window.is_idle
    assert window.offer("a", "u", 1.0)


def test_what_a_nack_took_back_is_passed_over_until_it_is_answered() -> None:
    window = AckWindow(window=9, hold=100.0)
    assert all(window.offer(name, "u", 0.0) for name in ("a", "b", "acked"))
    window.ack("acked")
    window.take()
    assert window.nack("a", "u", 0.0)
    assert window.nack("b", "u", 0.0)
    assert not window.offer("late", "u", 0.0)
    assert window.offer("other", "v", 0.0)
    assert not window.offer("acked", "u", 0.0)  # and yet it is acknowledged again
    frame = window.take()
    assert frame is not None
    assert list(frame.acks.event_ids) == ["acked"]
    window.answered(["a", "unknown"])
    assert not window.offer("a", "u", 0.0)
    window.answered(["b"])
    assert [window.offer(name, "u", 0.0) for name in ("a", "b", "late")] == [True] * 3


def test_a_lost_stream_answers_its_nacks() -> None:
    window = AckWindow(window=5, hold=100.0)
    assert window.offer("a", "u", 0.0)
    assert window.nack("a", "u", 0.0)
    window.lost()
    assert window.offer("a", "u", 0.0)
    assert window.offer("b", "u", 0.0)


events = st.lists(st.tuples(st.sampled_from(["give", "ack", "write", "lost"]), st.integers(0, 4)))


@given(events)
def test_every_event_is_handed_out_once_and_its_ack_arrives(
    history: list[tuple[str, int]],
) -> None:
    window = AckWindow(window=5, hold=60.0)
    at_gateway = [f"e{i}" for i in range(8)]
    given_on_stream: set[str] = set()
    in_hand: list[str] = []
    handed_out: list[str] = []

    def give() -> None:
        unacked = given_on_stream & set(at_gateway)
        for event_id in at_gateway:
            if event_id not in given_on_stream and len(unacked) < 5:
                given_on_stream.add(event_id)
                if window.offer(event_id, "u", 0.0):
                    in_hand.append(event_id)
                    handed_out.append(event_id)
                return

    def write() -> None:
        frame = window.take()
        for event_id in frame.acks.event_ids if frame is not None else ():
            if event_id in given_on_stream and event_id in at_gateway:
                at_gateway.remove(event_id)

    for what, choice in history:
        if what == "give":
            give()
        elif what == "ack" and choice < len(in_hand):
            window.ack(in_hand.pop(choice))
        elif what == "write":
            write()
        elif what == "lost":
            given_on_stream.clear()
            if choice % 2:
                window.take()  # written to a stream that never carried it
    for _ in range(200):
        give()
        while in_hand:
            window.ack(in_hand.pop())
        write()
        if window.is_idle and at_gateway:
            given_on_stream.clear()
    assert not at_gateway
    assert len(handed_out) == len(set(handed_out)) == 8
