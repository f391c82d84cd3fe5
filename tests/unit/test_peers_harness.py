"""A missing toolchain skips a test, unless every toolchain is required."""

from __future__ import annotations

import pytest

from tests.harness.peers import REQUIRE_TOOLCHAINS, missing


def test_skipped_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE_TOOLCHAINS, raising=False)
    with pytest.raises(pytest.skip.Exception):
        missing("node")


def test_failed_where_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE_TOOLCHAINS, "1")
    with pytest.raises(pytest.fail.Exception):
        missing("node")
