"""The command line of the harness."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tripleratchet import primitives as ratchet

from bench import __main__ as commands
from bench import primitives, report
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


def test_a_workload_that_fails_leaves_the_page_to_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    class FakeProcess:
        def __init__(self, *, args: tuple[str, object], **_: object) -> None:
            self._name = args[0]
            self.exitcode = int(args[0] == "relay")

        def start(self) -> None:
            ran.append(self._name)

        def join(self) -> None:
            pass

    monkeypatch.setattr(commands, "_SPAWN", SimpleNamespace(Process=FakeProcess))
    monkeypatch.setattr(report, "write", lambda: tmp_path / "page.html")
    monkeypatch.setattr(sys, "argv", ["bench", "report", "relay", "chat"])
    with pytest.raises(SystemExit, match="failed: relay; of these"):
        main()
    assert ran == ["relay", "chat"]
    assert "page.html" in capsys.readouterr().out


def test_the_primitives_are_shown_side_by_side(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(primitives, "_ROUND_S", 0.0)
    monkeypatch.setattr(sys, "argv", ["primitives", "--json", "--rounds", "1"])
    primitives.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    shown = {row["primitive"] for row in rows if "primitive" in row}
    assert shown == {name for name in ratchet.__all__ if name != "PRIMITIVES"}
