"""The names that a business number makes with its key."""

from __future__ import annotations

from letterlockd.gateway.numbers import Number
from letterlockd.model.ids import AccountId

NUMBER = Number(AccountId(bytes(16)), bytes(16), b"k" * 32, b"")
OTHER = Number(AccountId(bytes(16)), bytes(16), b"o" * 32, b"")


def test_tags_of_keys_that_begin_alike_lie_side_by_side() -> None:
    keys = [f"0192f3c45a1b{place:020x}" for place in range(64)]
    tags = [NUMBER.key_tag(key) for key in keys]
    assert {len(tag) for tag in tags} == {32}
    assert len({tag[:4] for tag in tags}) == 1
    assert len(set(tags)) == len({tag[4:] for tag in tags}) == 64


def test_tags_of_keys_that_begin_otherwise_do_not() -> None:
    beginnings = [f"0192f3c45a{last}" for last in "0123456789abcdef"]
    assert len({NUMBER.key_tag(beginning + "0" * 21)[:4] for beginning in beginnings}) == 16


def test_a_tag_is_made_of_the_whole_key_and_of_the_number() -> None:
    keys = ["a", "b", "aa", "0192f3c45a1", "0192f3c45a1b", "x" * 64]
    tags = [number.key_tag(key) for number in (NUMBER, OTHER) for key in keys]
    assert len({tag[4:] for tag in tags}) == len(tags)
    assert NUMBER.key_tag("0192f3c45a1")[:4] != OTHER.key_tag("0192f3c45a1")[:4]
    assert NUMBER.key_tag("a") == NUMBER.key_tag("a")
