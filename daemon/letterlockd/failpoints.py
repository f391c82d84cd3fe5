"""Named places where a crash test makes this process, or its parent, die or fail.

    LETTERLOCK_FAILPOINTS="store.gateway.commit.before=kill@3;uplink.sent=error"

Each entry is `name=action` or `name=action@N`: at the N-th passage of that name in this process
(default the first), once. Actions: `kill` (SIGKILL to this process: no handler, no flush, what a
power cut leaves of a process), `kill-parent` (SIGKILL to the parent, this process goes on as an
orphan), `error` (raises `InjectedFault`).

    LETTERLOCK_FAILPOINTS_ARMED=/some/folder

Then a point acts only at a passage that finds a file of its name in that folder, and takes it away:
so a test says when, and a process that is started again does not die again. N counts from there.
The file may name another action than the entry; an empty one leaves it as it is.

The variables are inherited by child processes, so names carry their room. Without them a
passage costs one dictionary test. It knows nothing of what happens at the places.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from letterlockd.errors import EnvironmentFault

__all__ = ["ARMED_VARIABLE", "VARIABLE", "InjectedFault", "configure", "configured", "hit"]

VARIABLE = "LETTERLOCK_FAILPOINTS"
ARMED_VARIABLE = "LETTERLOCK_FAILPOINTS_ARMED"

_ACTIONS = ("kill", "kill-parent", "error")


class InjectedFault(EnvironmentFault):
    """A failpoint with the action `error` was passed."""

    reason = "FAILPOINT"


@dataclass(slots=True)
class _Point:
    action: str
    passages_left: int


_points: dict[str, _Point] = {}
_armed_folder = os.environ.get(ARMED_VARIABLE)


def hit(name: str) -> None:
    """Pass the place `name`; dies or raises `InjectedFault` if the environment says so."""
    if _points:
        _pass(name)


def configure(specification: str) -> None:
    """Replace all failpoints by those of `specification` (the variable's syntax; "" for none).

    Raises `EnvironmentFault` (reason FAILPOINTS_INVALID) on an entry that cannot be read.
    """
    points = dict(_parse(entry) for entry in specification.split(";") if entry.strip())
    _points.clear()
    _points.update(points)


def configured() -> tuple[str, ...]:
    """Names that are armed: the daemon says so loudly at start, this is not for production."""
    return tuple(_points)


def _parse(entry: str) -> tuple[str, _Point]:
    name, _, rest = entry.strip().partition("=")
    action, _, count = rest.partition("@")
    if not name or action not in _ACTIONS or (count and not count.isdecimal()):
        raise EnvironmentFault(
            f"{VARIABLE}: entry {entry!r} is not name=action[@N] with an action of "
            f"{', '.join(_ACTIONS)}",
            reason="FAILPOINTS_INVALID",
        )
    return name, _Point(action, int(count or 1))


def _pass(name: str) -> None:
    point = _points.get(name)
    if point is None or not _is_armed(name):
        return
    point.passages_left -= 1
    if _armed_folder is None and point.passages_left == 0:
        _act(name, point.action)
    elif _armed_folder is not None and point.passages_left <= 0:
        _act(name, _disarmed(name, point.action))


def _act(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "kill-parent":
        os.kill(os.getppid(), signal.SIGKILL)
    elif action == "error":
        raise InjectedFault(f"failpoint {name}")


def _is_armed(name: str) -> bool:
    return _armed_folder is None or os.path.exists(os.path.join(_armed_folder, name))


def _disarmed(name: str, action: str) -> str:
    """What to do now. Of several processes that pass, the one that takes the file away acts."""
    path = os.path.join(_armed_folder or "", name)
    try:
        with open(path, encoding="ascii") as file:
            other = file.read().strip()
        os.unlink(path)
    except FileNotFoundError:
        return ""
    return other or action


configure(os.environ.get(VARIABLE, ""))
