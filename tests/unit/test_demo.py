"""What the demo prints: lines are wrapped for a terminal, and whole where they are piped."""

from __future__ import annotations

import io

import pytest

from tests import demo

WHAT = "The gateway is killed (SIGKILL) in the middle of a stream"
SEEN = "1,000 of 1,000 accepted, 1,000 read, each once and in order, 3.2 s with the restart"


class Terminal(io.StringIO):
    """Where a person reads."""

    def isatty(self) -> bool:
        """Yes."""
        return True


@pytest.mark.parametrize(("out", "whole"), [(io.StringIO(), 2), (Terminal(), 0)])
def test_lines_are_wrapped_on_a_terminal_alone(
    out: io.StringIO, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(demo, "console", demo.console_on(out))
    story = demo.Story()
    story.tell(WHAT, SEEN, true=True)
    demo.console.print(demo.summary(story, 7))
    lines = out.getvalue().splitlines()
    assert sum(WHAT in line and SEEN in line for line in lines) == whole
