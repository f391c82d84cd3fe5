"""The judge finds each kind of violation, and nothing in a run that kept its promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.judge import is_settled, judge
from tests.faults.ledger import Ledger, Reading
from tests.harness.people import ACCEPTED, DELIVERED, EXPIRED, READ, SENT

ANA, BEN = "+15561", "+15562"


def good() -> Ledger:
    ledger = Ledger()
    for n, to in enumerate((ANA, BEN, ANA)):
        ledger.submitting(f"k{n}", to, f"text {n}")
        ledger.accepted(f"k{n}", f"m{n}")
        ledger.read(to, f"m{n}", f"text {n}")
        for status in (ACCEPTED, SENT, DELIVERED):
            ledger.told(f"m{n}", status)
    for n in range(3):
        ledger.wrote(ANA, f"answer {n}")
        ledger.heard(f"e{n}", ANA, f"answer {n}")
    ledger.keys[b"k"] = {b"one"}
    return ledger


def test_promises_that_were_kept() -> None:
    assert judge(good()) == []
    assert is_settled(good())


def never_read(ledger: Ledger) -> None:
    del ledger.readings[1]


def never_answered(ledger: Ledger) -> None:
    ledger.sent["k1"].message_ids.clear()


def never_heard(ledger: Ledger) -> None:
    del ledger.hearings[1]


def expired(ledger: Ledger) -> None:
    ledger.statuses["m1"] = [ACCEPTED, EXPIRED]


def never_delivered(ledger: Ledger) -> None:
    ledger.statuses["m1"].pop()


def two_messages(ledger: Ledger) -> None:
    ledger.accepted("k1", "m9")
    ledger.read(BEN, "m9", "text 1")


def read_twice(ledger: Ledger) -> None:
    ledger.read(BEN, "m1", "text 1")


def heard_twice(ledger: Ledger) -> None:
    ledger.heard("e9", ANA, "answer 2")


def another_text(ledger: Ledger) -> None:
    ledger.readings[1] = Reading(BEN, "m1", "text 0")


def to_another(ledger: Ledger) -> None:
    ledger.readings[1] = Reading(ANA, "m1", "text 1")


def never_written(ledger: Ledger) -> None:
    ledger.heard("e9", ANA, "who said that?")


def read_in_another_order(ledger: Ledger) -> None:
    ledger.readings[0], ledger.readings[2] = ledger.readings[2], ledger.readings[0]


def heard_in_another_order(ledger: Ledger) -> None:
    ledger.hearings[0], ledger.hearings[1] = ledger.hearings[1], ledger.hearings[0]


def status_back(ledger: Ledger) -> None:
    ledger.statuses["m1"] = [ACCEPTED, DELIVERED, SENT, DELIVERED]


def status_repeated(ledger: Ledger) -> None:
    ledger.statuses["m1"] = [ACCEPTED, SENT, SENT, DELIVERED]


def one_key_for_two(ledger: Ledger) -> None:
    ledger.keys[b"k"].add(b"two")


@pytest.mark.parametrize(
    ("spoil", "verdict"),
    [
        (never_read, "lost: k1"),
        (never_answered, "lost: k1"),
        (never_heard, "lost: answer 1"),
        (expired, "lost: m1"),
        (never_delivered, "lost: m1"),
        (two_messages, "repeated: k1"),
        (read_twice, "repeated: m1"),
        (heard_twice, "repeated: answer 2"),
        (another_text, "altered: m1"),
        (to_another, "altered: m1"),
        (never_written, "altered: who said that?"),
        (read_in_another_order, "disordered: text 0"),
        (heard_in_another_order, "disordered: a user"),
        (status_back, "backwards: m1"),
        (status_repeated, "backwards: m1"),
        (one_key_for_two, "key reuse: 2"),
    ],
)
def test_a_broken_promise_is_found(spoil: Callable[[Ledger], None], verdict: str) -> None:
    ledger = good()
    spoil(ledger)
    assert any(found.startswith(verdict) for found in judge(ledger)), judge(ledger)


def test_a_refused_message_may_come_later_but_not_before_what_was_accepted_before_it() -> None:
    ledger = good()
    ledger.submitting("k3", ANA, "text 3")
    ledger.submitting("k4", ANA, "text 4")
    ledger.refused("k3", "STORAGE_FULL")
    ledger.accepted("k4", "m4")
    ledger.submitting("k3", ANA, "text 3")
    ledger.accepted("k3", "m3")
    for message_id in ("m3", "m4"):
        for status in (SENT, READ):
            ledger.told(message_id, status)
    ledger.read(ANA, "m4", "text 4")
    ledger.read(ANA, "m3", "text 3")
    assert judge(ledger) == []
    ledger.readings[-2:] = reversed(ledger.readings[-2:])
    assert [found.partition(":")[0] for found in judge(ledger)] == ["disordered"]


def test_what_is_missing_is_not_settled() -> None:
    for spoil in (never_read, never_heard, never_delivered):
        ledger = good()
        spoil(ledger)
        assert not is_settled(ledger)
    ledger = good()
    ledger.sent["k0"].receipt_wanted = True
    assert not is_settled(ledger)
