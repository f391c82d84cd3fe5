"""The supervisor over small role processes that say what they do in a shared journal."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from letterlockd.exit_codes import ExitCode
from letterlockd.readiness import Ready
from letterlockd.supervisor import Plan, supervise

ROLE = """
import json, os, signal, sys
role, ready_fd, journal, behaviour, settings = sys.argv[1:]
def note(what):
    with open(journal, "a") as file:
        file.write(f"{role} {what}\\n")
    with open(journal + ".bell", "w") as bell:
        bell.write("\\n")
starts = open(journal).read().count(f"{role} start")
note("start " + settings)
if behaviour.startswith("exit "):
    _, code, times = behaviour.split()
    if starts < int(times):
        sys.exit(int(code))
def stop(*_):
    note("term")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
line = json.dumps({"role": role, "address": f"127.0.0.1:{7000 + len(role)}"})
os.write(int(ready_fd), line.encode() + b"\\n")
os.close(int(ready_fd))
if behaviour.startswith("die ") and starts < int(behaviour.split()[1]):
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
note("orphaned")
"""


class Journal:
    """What the roles wrote, and a bell (a named pipe) that rings after each line."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal"
        self.path.touch()
        bell = folder / "journal.bell"
        os.mkfifo(bell)
        self._bell = os.open(bell, os.O_RDWR | os.O_NONBLOCK)  # never without a writer
        self._rung = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._bell, self._ring)

    def _ring(self) -> None:
        os.read(self._bell, 4096)
        self._rung.set()

    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._rung.wait()
            self._rung.clear()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._bell)
        os.close(self._bell)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    journal = Journal(tmp_path)
    yield journal
    journal.close()


class Stage:
    """Runs a supervisor with role behaviours, and reads the journal."""

    def __init__(self, journal: Journal, **behaviours: str) -> None:
        self.journal = journal
        self.behaviours = behaviours
        self.ready: asyncio.Future[tuple[Ready, Ready]] = asyncio.get_running_loop().create_future()

    def command(self, role: str, ready_fd: int, pinned: Mapping[str, str]) -> list[str]:
        behaviour = self.behaviours.get(role, "")
        settings = ",".join(f"{key}={pinned[key]}" for key in sorted(pinned))
        return [
            *(sys.executable, "-S", "-c", ROLE),
            *(role, str(ready_fd), str(self.journal.path), behaviour, settings),
        ]

    async def run(self, *, max_restarts: int = 3) -> int:
        plan = Plan(self.command, max_restarts=max_restarts, window_seconds=60, drain_seconds=5)
        return await supervise(plan, lambda *both: self.ready.set_result(both))

    def events(self) -> list[str]:
        return [" ".join(line.split()[:2]) for line in self.journal.lines()]

    def starts(self, role: str) -> list[str]:
        """The settings of each start."""
        lines = [line.split(" ") for line in self.journal.lines()]
        return [words[2] for words in lines if words[:2] == [role, "start"]]


async def test_roles_start_relay_first_and_stop_gateway_first(journal: Journal) -> None:
    stage = Stage(journal)
    running = asyncio.create_task(stage.run())
    relay, gateway = await stage.ready
    assert (relay.role, gateway.role) == ("relay", "gateway")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == ExitCode.OK
    assert stage.events() == ["relay start", "gateway start", "gateway term", "relay term"]


async def test_the_gateway_is_told_where_the_relay_is(journal: Journal) -> None:
    stage = Stage(journal)
    running = asyncio.create_task(stage.run())
    relay, _ = await stage.ready
    os.kill(os.getpid(), signal.SIGINT)
    await running
    assert f"gateway.relay={relay.address}" in stage.starts("gateway")[0]


async def test_a_role_that_cannot_start_yet_is_started_again(journal: Journal) -> None:
    stage = Stage(journal, relay=f"exit {ExitCode.ENVIRONMENT} 2")
    running = asyncio.create_task(stage.run())
    await stage.ready
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == ExitCode.OK
    assert len(stage.starts("relay")) == 3


@pytest.mark.parametrize("code", [ExitCode.CONFIG, ExitCode.KEYS, ExitCode.LISTEN])
async def test_a_fault_that_no_restart_mends_ends_all(journal: Journal, code: ExitCode) -> None:
    stage = Stage(journal, gateway=f"exit {code:d} 1")
    assert await stage.run() == code
    assert stage.events() == ["relay start", "gateway start", "relay term"]


async def test_a_role_that_keeps_ending_is_given_up(journal: Journal) -> None:
    stage = Stage(journal, gateway="exit 1 99")
    assert await stage.run(max_restarts=1) == ExitCode.GAVE_UP
    assert len(stage.starts("gateway")) == 2
    assert stage.events()[-1] == "relay term"


async def test_a_killed_role_comes_back_where_it_was(journal: Journal) -> None:
    stage = Stage(journal, gateway="die 1")
    running = asyncio.create_task(stage.run())
    _, gateway = await stage.ready
    await journal.until(lambda: len(stage.starts("gateway")) == 2)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == ExitCode.OK
    assert f"gateway.listen={gateway.address}" in stage.starts("gateway")[1]
    assert "relay start" in stage.events()
    assert len(stage.starts("relay")) == 1


async def test_roles_notice_when_the_supervisor_is_killed(journal: Journal) -> None:
    script = (
        "import asyncio, sys\n"
        "from letterlockd.supervisor import Plan, supervise\n"
        "from letterlockd.telemetry import set_up_logs\n"
        "set_up_logs('serve', level='info', style='json')\n"
        f"ROLE, journal = {ROLE!r}, {str(journal.path)!r}\n"
        "def command(role, fd, pinned):\n"
        "    return [sys.executable, '-S', '-c', ROLE, role, str(fd), journal, '', '']\n"
        "plan = Plan(command, max_restarts=0, window_seconds=1, drain_seconds=1)\n"
        "asyncio.run(supervise(plan, lambda *_: print('ready', flush=True)))\n"
    )
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    assert await supervisor.stdout.readline() == b"ready\n"
    supervisor.kill()
    await supervisor.wait()
    await journal.until(lambda: {"relay orphaned", "gateway orphaned"} <= set(journal.lines()))


@pytest.mark.parametrize(
    ("process", "never"),
    [
        (
            "letterlockd.cli, letterlockd.supervisor, letterlockd.telemetry",
            ["grpc", "lmdb", "cryptography", "tripleratchet"],
        ),
        (
            "letterlockd.cli, letterlockd.app.relay",
            ["tripleratchet", "nacl", "letterlockd.workers", "letterlockd.gateway"],
        ),
    ],
)
def test_a_process_never_loads_what_it_must_not_know(process: str, never: list[str]) -> None:
    script = f"import sys, {process}\nprint(*[n for n in {never} if n in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
