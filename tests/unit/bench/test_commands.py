"""The command line of the harness."""

from __future__ import annotations

import sys

import pytest

from bench.__main__ import main
from bench.workloads import ALL


def helped(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


def test_help_names_each_workload(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    helped(monkeypatch)
    shown = capsys.readouterr().out
    assert [name for name in (*ALL, "report", "compare", "check") if name not in shown] == []


@pytest.mark.parametrize("command", [*ALL, "report", "compare", "check"])
def test_each_command_has_help(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    helped(monkeypatch, command)


def test_an_unknown_workload_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "report", "crypto", "nonsense"])
    with pytest.raises(SystemExit, match="no such workload: nonsense"):
        main()
