"""How codes leave: the folder and the operator's program."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path

import pytest
from letterlockd.relay.senders import CommandSender, FolderSender, VerificationNotSent

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
