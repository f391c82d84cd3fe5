from __future__ import annotations

from letterlock.v1 import messaging_pb2 as api
from letterlockd.gateway.recent import Recent, Written
from letterlockd.model.ids import MessageId
from letterlockd.records.v1.gateway_pb2 import MessageRecord

ACCEPTED = Written(MessageRecord(status=api.MESSAGE_STATUS_ACCEPTED), 1_000)
DELIVERED = Written(MessageRecord(status=api.MESSAGE_STATUS_DELIVERED), 1_000)


def name(number: int) -> MessageId:
    return MessageId(number.to_bytes(16, "big"))


def test_a_record_is_given_once() -> None:
    recent = Recent()
    recent.keep(name(1), ACCEPTED)
    assert recent.take(name(1), 0) is ACCEPTED
    assert recent.take(name(1), 0) is None


def test_an_expired_record_is_not_given_since_its_row_may_be_gone() -> None:
    recent = Recent()
    recent.keep(name(1), ACCEPTED)
    assert recent.take(name(1), 1_000) is None


def test_the_oldest_is_forgotten_beyond_the_bound() -> None:
    recent = Recent(bound=2)
    for number in (1, 2, 3):
        recent.keep(name(number), ACCEPTED)
    assert [recent.take(name(number), 0) for number in (1, 2, 3)] == [None, ACCEPTED, ACCEPTED]


def test_what_waits_only_for_a_reader_is_not_kept() -> None:
    recent = Recent()
    recent.keep(name(1), DELIVERED)
    assert recent.take(name(1), 0) is None
