"""The ledger notices what was lost, repeated or never sent."""

from __future__ import annotations

import pytest

from bench.ledger import Balance, Ledger, LedgerError
from bench.run import ledger_error


def _ledger(expected: int, *numbers: int) -> Ledger:
    ledger = Ledger()
    ledger.begin(expected)
    for number in numbers:
        ledger.note(number)
    return ledger


def test_balances_when_each_came_once_in_any_order() -> None:
    ledger = _ledger(3, 2, 0, 1)
    assert ledger.complete.is_set()
    ledger.balance.check(3)


@pytest.mark.parametrize(
    ("numbers", "balance"),
    [
        ((0, 1), Balance(2, 0, 0)),
        ((0, 1, 1, 2), Balance(3, 1, 0)),
        ((0, 1, 2, 3), Balance(3, 0, 1)),
        ((0, 1, 2, -1), Balance(3, 0, 1)),
    ],
)
def test_does_not_balance(numbers: tuple[int, ...], balance: Balance) -> None:
    ledger = _ledger(3, *numbers)
    assert ledger.balance == balance
    with pytest.raises(LedgerError):
        ledger.balance.check(3)


def test_a_new_count_begins_from_nothing() -> None:
    ledger = _ledger(1, 0)
    ledger.begin(1)
    assert not ledger.complete.is_set()
    assert ledger.balance == Balance(0, 0, 0)


def test_its_error_is_found_in_groups_of_tasks() -> None:
    lost = LedgerError("lost")
    grouped = ExceptionGroup("outer", [ValueError(), ExceptionGroup("inner", [lost])])
    assert ledger_error(grouped) is lost
    assert ledger_error(lost) is lost
    assert ledger_error(ExceptionGroup("other", [ValueError()])) is None
