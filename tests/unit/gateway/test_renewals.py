"""Sessions that a conversation may give up: a few at once, then one in ten minutes."""

from __future__ import annotations

import pytest
from letterlockd.gateway import renewals as module
from letterlockd.gateway.renewals import Renewals
from letterlockd.model.ids import ConversationId

from tests.harness.clock import FakeClock

ONE, OTHER = ConversationId(b"1" * 32), ConversationId(b"2" * 32)


async def test_six_at_once_and_one_more_in_ten_minutes() -> None:
    clock = FakeClock()
    renewals = Renewals(clock)
    for _ in range(6):
        assert renewals.allowed(ONE)
        renewals.spend(ONE)
    assert not renewals.allowed(ONE)
    assert renewals.allowed(OTHER)
    await clock.advance(600_000)
    assert renewals.allowed(ONE)
    renewals.spend(ONE)
    assert not renewals.allowed(ONE)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CONVERSATIONS", 1)
    renewals = Renewals(FakeClock())
    for _ in range(6):
        renewals.spend(ONE)
    renewals.spend(OTHER)
    assert renewals.allowed(ONE)
