from __future__ import annotations

from dataclasses import dataclass

from letterlockd.gateway.turns import Turns
from letterlockd.model.ids import ConversationId

A, B = ConversationId(b"a"), ConversationId(b"b")


@dataclass
class Item:
    conversation: ConversationId
    name: int
    day: int = 0


def names(taken: list[tuple[ConversationId, list[Item]]]) -> dict[bytes, list[int]]:
    return {conversation: [item.name for item in items] for conversation, items in taken}


def test_a_busy_conversation_is_not_taken_again() -> None:
    turns: Turns[Item] = Turns()
    turns.put(Item(A, 1))
    assert names(turns.take(10)) == {A: [1]}
    turns.put(Item(A, 2))
    turns.put(Item(B, 3))
    assert names(turns.take(10)) == {B: [3]}
    assert not turns
    turns.release(A)
    assert names(turns.take(10)) == {A: [2]}


def test_what_is_put_back_comes_first() -> None:
    turns: Turns[Item] = Turns()
    for name in (1, 2):
        turns.put(Item(A, name))
    ((_, items),) = turns.take(10)
    turns.put(Item(A, 3))
    turns.put_back(A, items)
    assert not turns
    turns.release(A)
    assert names(turns.take(10)) == {A: [1, 2, 3]}


def test_works_of_two_days_are_two_turns() -> None:
    turns: Turns[Item] = Turns()
    for name, day in ((1, 0), (2, 0), (3, 1), (4, 0)):
        turns.put(Item(A, name, day))
    for expected in ([1, 2], [3], [4]):
        assert names(turns.take(10)) == {A: expected}
        turns.release(A)
    assert turns.idle


def test_the_limit_counts_works_over_conversations() -> None:
    turns: Turns[Item] = Turns()
    for name in range(3):
        turns.put(Item(A, name))
        turns.put(Item(B, name))
    assert names(turns.take(4)) == {A: [0, 1, 2], B: [0]}
    turns.release(B)
    assert names(turns.take(4)) == {B: [1, 2]}
    turns.release(A)
    turns.release(B)
    assert turns.idle
