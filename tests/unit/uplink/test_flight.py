from __future__ import annotations

import pytest
from letterlock.relay.v1 import mailbox_pb2 as wire
from letterlockd.uplink import flight as module
from letterlockd.uplink.flight import Flight

ACCOUNT = b"a" * 16


def offer(flight: Flight[int], *tags: int, size: int = 0) -> None:
    for tag in tags:
        submission = wire.Submission(message_id=name(tag), sender_account_id=ACCOUNT)
        if size:
            submission.envelopes.add(body=bytes(size))
        flight.offer(tag, ACCOUNT, name(tag), submission.SerializeToString())


def name(tag: int) -> bytes:
    return tag.to_bytes(16, "big")


def next_frame(flight: Flight[int]) -> wire.ConnectRequest | None:
    frame = flight.next_frame()
    return None if frame is None else wire.ConnectRequest.FromString(frame)


def said(flight: Flight[int]) -> list[int]:
    frame = next_frame(flight)
    assert frame is not None
    return [int.from_bytes(one.message_id, "big") for one in frame.submissions.submissions]


def results(*tags: int, account: bytes = ACCOUNT) -> wire.SubmissionResults:
    return wire.SubmissionResults(
        results=[
            wire.SubmissionResult(message_id=name(tag), sender_account_id=account) for tag in tags
        ]
    )


def tags(flight: Flight[int], answer: wire.SubmissionResults) -> list[int]:
    return [answered.tag for answered in flight.answered(answer)]


def test_submissions_are_said_in_order_and_answered_by_name() -> None:
    flight: Flight[int] = Flight()
    offer(flight, 1, 2, 3)
    assert said(flight) == [1, 2, 3]
    assert flight.next_frame() is None
    assert tags(flight, results(2)) == [2]
    assert tags(flight, results(2, 7)) == []
    assert tags(flight, results(1, account=b"b" * 16)) == []
    assert len(flight) == 2


def test_what_a_lost_stream_did_not_answer_is_said_first() -> None:
    flight: Flight[int] = Flight()
    offer(flight, 1, 2, 3)
    said(flight)
    flight.answered(results(2))
    offer(flight, 4)
    flight.acknowledge([9])
    flight.lost()
    assert said(flight) == [1, 3, 4]


def test_acks_go_before_submissions_and_in_frames_of_the_contract(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_ACKS", 2)
    flight: Flight[int] = Flight()
    offer(flight, 1)
    flight.acknowledge([1, 2, 3])
    frames = [next_frame(flight), next_frame(flight)]
    assert [list(frame.acks.item_ids) for frame in frames if frame] == [[1, 2], [3]]
    assert said(flight) == [1]


def test_a_frame_holds_256_submissions_and_4_mib() -> None:
    flight: Flight[int] = Flight()
    offer(flight, *range(300))
    assert len(said(flight)) == 256
    assert len(said(flight)) == 44
    offer(flight, *range(300, 310), size=1_000_000)
    while (frame := next_frame(flight)) is not None:
        assert frame.submissions.ByteSize() <= module.MAX_FRAME_BYTES


def test_withdrawn_submissions_are_neither_said_nor_answered() -> None:
    flight: Flight[int] = Flight()
    offer(flight, 1, 2)
    said(flight)
    offer(flight, 3, 4)
    flight.withdraw({1, 3})
    assert tags(flight, results(1, 2)) == [2]
    assert said(flight) == [4]
