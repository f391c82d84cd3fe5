"""What waits behind rows that the relay was too busy for, and in which order it goes on."""

from __future__ import annotations

from letterlockd.gateway.outbox import OutboxRow
from letterlockd.gateway.put_off import PutOff
from letterlockd.records.v1.gateway_pb2 import OutboxRecord

ONE, OTHER = b"c" * 32, b"d" * 32


def row(sequence: int, conversation: bytes = ONE, *, only_device: int = 0) -> OutboxRow:
    return OutboxRow(sequence, OutboxRecord(conversation=conversation, only_device=only_device))


def sequences(rows: list[OutboxRow]) -> list[int]:
    return [one.sequence for one in rows]


def test_later_rows_wait_and_all_go_in_order() -> None:
    put_off = PutOff()
    put_off.refused([(row(2), 5.0), (row(1), 5.0)], [row(1), row(2)])
    assert put_off.wait(row(3))
    assert not put_off.wait(row(4, OTHER))
    assert (len(put_off), put_off.next_s) == (3, 5.0)
    assert put_off.due(4.9) == []
    assert sequences(put_off.due(5.0)) == [1, 2, 3]
    assert not put_off
    assert not put_off.wait(row(5))


def test_nothing_goes_before_what_is_out_has_come_back() -> None:
    put_off = PutOff()
    put_off.refused([(row(1), 5.0)], [row(1), row(2), row(3), row(4, OTHER)])
    assert put_off.next_s is None
    assert sorted(put_off.out) == [2, 3]
    assert put_off.due(9.0) == []
    put_off.refused([(row(3), 7.0)], [row(2), row(3)])
    put_off.gone(row(2))  # the relay had taken it
    assert put_off.next_s == 7.0
    assert sequences(put_off.due(7.0)) == [1, 3]


def test_a_row_that_ends_while_it_waits_is_not_offered() -> None:
    put_off = PutOff()
    put_off.refused([(row(1), 5.0)], [row(1), row(2)])
    put_off.gone(row(1))
    assert put_off, "row 2 is out, and what follows must not pass it"
    put_off.wait(row(2))
    assert sequences(put_off.due(5.0)) == [2]
    put_off.refused([(row(2), 6.0)], [row(2)])
    put_off.gone(row(2))
    assert not put_off
    assert put_off.next_s is None


def test_a_row_that_was_encrypted_again_waits_in_its_new_form() -> None:
    put_off = PutOff()
    put_off.refused([(row(1), 5.0)], [row(1)])
    new = row(1)
    new.record.repairs = 1
    put_off.wait(new)
    assert [one.record.repairs for one in put_off.due(5.0)] == [1]


def test_what_heals_a_session_waits_alone() -> None:
    put_off = PutOff()
    resend = row(1, only_device=2)
    put_off.refused([(resend, 5.0)], [resend, row(2), row(3, only_device=2)])
    assert not put_off.wait(row(2))
    assert not put_off.wait(row(3, only_device=2))
    assert sequences(put_off.due(5.0)) == [1]
