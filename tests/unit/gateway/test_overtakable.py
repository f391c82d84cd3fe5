"""News that are kept back: overtaken, due in time, and never more than the bound."""

from __future__ import annotations

from letterlockd.gateway.overtakable import Overtakable
from letterlockd.model.ids import MessageId

A, B, C = (MessageId(bytes([n]) * 16) for n in range(3))


def test_groups_are_due_in_order_and_in_time() -> None:
    kept: Overtakable[str] = Overtakable(10)
    kept.add("first", [A, B], 1.0)
    kept.add("second", [C], 2.0)
    assert kept.next_s == 1.0
    assert kept.due(0.9) == []
    assert kept.due(1.0) == [("first", frozenset({A, B}))]
    assert kept.due(9.0) == [("second", frozenset({C}))]
    assert kept.next_s is None


def test_a_group_keeps_its_place_when_its_news_are_overtaken() -> None:
    kept: Overtakable[str] = Overtakable(10)
    kept.add("group", [A, B], 1.0)
    kept.overtaken(A)
    kept.overtaken(C)  # of which nothing waits
    assert kept.due(1.0) == [("group", frozenset({B}))]


def test_too_many_are_due_at_once_the_oldest_first() -> None:
    kept: Overtakable[str] = Overtakable(2)
    kept.add("first", [A, B], 1.0)
    kept.add("second", [C], 2.0)
    assert kept.due(0.0) == [("first", frozenset({A, B}))]
    assert kept.due(0.0) == []


def test_the_same_message_twice_is_told_once() -> None:
    kept: Overtakable[str] = Overtakable(10)
    kept.add("sent", [A], 1.0)
    kept.add("sent again", [A], 1.0)
    assert kept.due(1.0) == [("sent", frozenset({A})), ("sent again", frozenset())]
