from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from letterlockd import failpoints
from letterlockd.errors import EnvironmentFault


@pytest.fixture(autouse=True)
def _none_left() -> Iterator[None]:
    yield
    failpoints.configure("")


def test_unconfigured_passages_do_nothing() -> None:
    failpoints.configure("")
    failpoints.hit("anything")
    assert failpoints.configured() == ()


def test_an_error_is_raised_at_the_nth_passage_only() -> None:
    failpoints.configure("a.b=error@3; c=error")
    assert failpoints.configured() == ("a.b", "c")
    for _ in range(2):
        failpoints.hit("a.b")
    with pytest.raises(failpoints.InjectedFault):
        failpoints.hit("a.b")
    failpoints.hit("a.b")
    with pytest.raises(failpoints.InjectedFault):
        failpoints.hit("c")


@pytest.mark.parametrize("entry", ["a", "a=", "=kill", "a=explode", "a=kill@x", "a=kill@-1"])
def test_a_misspelt_entry_is_an_error(entry: str) -> None:
    with pytest.raises(EnvironmentFault) as caught:
        failpoints.configure(entry)
    assert caught.value.reason == "FAILPOINTS_INVALID"


def test_kill_ends_this_process_at_once() -> None:
    program = (
        "import atexit; from letterlockd import failpoints\n"
        "atexit.register(print, 'a handler ran')\n"
        "failpoints.hit('x'); print('once', flush=True); failpoints.hit('x'); print('twice')"
    )
    done = _run(program, "x=kill@2")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "once\n")


def test_kill_parent_ends_the_parent_and_not_this_process() -> None:
    child = "from letterlockd import failpoints; failpoints.hit('x'); print('child goes on')"
    program = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])\n"
        "print('parent goes on')"
    )
    done = _run(program, "x=kill-parent")
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "child goes on\n")


def test_an_armed_point_acts_once_over_all_processes(tmp_path: Path) -> None:
    program = (
        "import pathlib; from letterlockd import failpoints\n"
        "failpoints.hit('x'); print('not armed', flush=True)\n"
        f"armed = pathlib.Path({str(tmp_path / 'x')!r})\n"
        "(armed.parent / 'first').exists() or armed.touch()\n"
        "(armed.parent / 'first').touch()\n"
        "failpoints.hit('x'); print('went on')"
    )
    first = _run(program, "x=kill", armed=tmp_path)
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, "not armed\n")
    second = _run(program, "x=kill", armed=tmp_path)
    assert (second.returncode, second.stdout) == (0, "not armed\nwent on\n")


def _run(
    program: str, specification: str, armed: Path | None = None
) -> subprocess.CompletedProcess[str]:
    folder = {} if armed is None else {failpoints.ARMED_VARIABLE: str(armed)}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, failpoints.VARIABLE: specification, **folder},
        capture_output=True,
        text=True,
        check=False,
    )
