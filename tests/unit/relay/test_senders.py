"""How codes leave: the folder and the operator's program."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path

import pytest
from letterlockd.errors import Forbidden
from letterlockd.relay.numbers import NumberVault
from letterlockd.relay.senders import CommandSender, FolderSender, VerificationNotSent
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.verification import Verifications
from letterlockd.sealing import keyring
from letterlockd.sealing.provider import FileKeyProvider
from structlog.testing import capture_logs

from tests.harness.clock import FakeClock
from tests.harness.relay import memory_store

NUMBER, CODE = "+4930123456", "042137"


async def test_the_folder_holds_the_code_alone(tmp_path: Path) -> None:
    await FolderSender(tmp_path / "codes").send("ab" * 16, NUMBER, CODE)
    (name,) = os.listdir(tmp_path / "codes")
    file = tmp_path / "codes" / name
    assert (file.name, file.read_text()) == ("ab" * 16, CODE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_the_folder_keeps_the_newest_hundred(tmp_path: Path) -> None:
    sender = FolderSender(tmp_path)
    for number in range(105):
        await sender.send(f"{number:032x}", NUMBER, CODE)
    names = set(os.listdir(tmp_path))
    assert len(names) == 100
    assert f"{104:032x}" in names


async def test_codes_that_leave_at_the_same_time_do_not_clean_up_each_other(tmp_path: Path) -> None:
    sender = FolderSender(tmp_path)
    names = [f"{number:032x}" for number in range(300)]
    await asyncio.gather(*(sender.send(name, NUMBER, CODE) for name in names))
    assert len(os.listdir(tmp_path)) == 100


async def test_a_folder_that_cannot_be_written_says_so_without_the_number(tmp_path: Path) -> None:
    (tmp_path / "codes").write_text("a file")
    with pytest.raises(VerificationNotSent) as failed:
        await FolderSender(tmp_path / "codes").send("ab" * 16, NUMBER, CODE)
    assert NUMBER not in str(failed.value)
    assert CODE not in str(failed.value)


def program(text: str) -> list[str]:
    return [sys.executable, "-c", f"import sys, time; {text}"]


async def test_the_program_reads_number_and_code_from_its_input(tmp_path: Path) -> None:
    out = tmp_path / "sent"
    sender = CommandSender(program(f"open({str(out)!r}, 'w').write(sys.stdin.read())"))
    await sender.send("ab" * 16, NUMBER, CODE)
    assert out.read_text() == f"{NUMBER}\n{CODE}\n"


@pytest.mark.parametrize(
    "command",
    [
        program("sys.exit(3)"),
        ["/nonexistent/program"],
    ],
)
async def test_a_program_that_fails_is_told_without_the_number(command: list[str]) -> None:
    with pytest.raises(VerificationNotSent) as failed:
        await CommandSender(command).send("ab" * 16, NUMBER, CODE)
    assert NUMBER not in str(failed.value)
    assert CODE not in str(failed.value)


async def test_a_program_that_hangs_is_ended() -> None:
    sender = CommandSender(program("time.sleep(1000)"), deadline_seconds=0.05)
    with pytest.raises(VerificationNotSent, match="too long"):
        await sender.send("ab" * 16, NUMBER, CODE)


class Codes:
    """Verifications over a folder, and what still lies in it."""

    def __init__(self, folder: Path, vault: NumberVault) -> None:
        self.folder, self.clock, self.store = folder, FakeClock(), memory_store()
        self._vault = vault
        self.verifications = self.started()

    def started(self) -> Verifications:
        """As after a start on the same store and folder."""
        sender, settings = FolderSender(self.folder), RelaySettings()
        return Verifications(self.store, self._vault, sender, self.clock, os.urandom, settings)

    async def left(self) -> set[str]:
        await self.verifications.clear()
        return set(os.listdir(self.folder))

    async def use(self, id_: str) -> None:
        code = (self.folder / id_).read_text()
        await self.store.commit([await self.verifications.confirm(id_, NUMBER, code)])


@pytest.fixture
async def codes(tmp_path: Path) -> Codes:
    store, key = memory_store(), FileKeyProvider(tmp_path / "master.key")
    keys = await keyring.Keyring.open(store, key, FakeClock())
    return Codes(tmp_path / "codes", await NumberVault.open(keys, os.urandom))


async def test_a_code_goes_when_it_is_used(codes: Codes) -> None:
    used, other = [(await codes.verifications.request(NUMBER)).verification_id for _ in range(2)]
    assert await codes.left() == {used, other}
    await codes.use(used)
    assert await codes.left() == {other}


async def test_a_code_goes_when_its_time_or_its_tries_are_over(codes: Codes) -> None:
    made = await codes.verifications.request(NUMBER)
    await codes.clock.advance(made.expires_at_ms - codes.clock.now_ms() - 1)
    guessed = (await codes.verifications.request(NUMBER)).verification_id
    assert await codes.left() == {made.verification_id, guessed}
    await codes.clock.advance(1)
    assert await codes.left() == {guessed}
    code = (codes.folder / guessed).read_text()
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    for _ in range(RelaySettings().verification_tries):
        with pytest.raises(Forbidden):
            await codes.verifications.confirm(guessed, NUMBER, wrong)
    assert await codes.left() == set()


async def test_a_start_clears_what_an_earlier_run_left_and_nothing_of_others(codes: Codes) -> None:
    pending = (await codes.verifications.request(NUMBER)).verification_id
    for name in ("ab" * 16, "." + "cd" * 16, "notes.txt"):
        (codes.folder / name).write_text("left")
    codes.verifications = codes.started()
    assert await codes.left() == {pending, "notes.txt"}


async def test_codes_that_cannot_be_removed_are_told_once_and_end_nothing(tmp_path: Path) -> None:
    async def no(verification_id: str) -> bool:
        return False

    (tmp_path / ("ab" * 16)).mkdir()  # cannot be unlinked
    sender = FolderSender(tmp_path)
    with capture_logs() as logs:
        await sender.clear(no)
        await sender.clear(no)
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("verification_codes_stay", "warning")
    ]
