"""The library's page: its examples run, and what it says of sizes is measured elsewhere."""

from __future__ import annotations

import doctest
from pathlib import Path

_PAGE = Path(__file__).parents[3] / "docs" / "tripleratchet.md"


def test_the_examples_run() -> None:
    result = doctest.testfile(str(_PAGE), module_relative=False)
    assert result.failed == 0
    assert result.attempted > 20
