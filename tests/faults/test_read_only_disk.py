"""A data folder on a disk that is mounted read-only: refused at the start, in words, and nothing is
changed. (A disk that refuses to write while the daemon runs is in the rounds: "cannot commit".)"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from letterlockd.exit_codes import ExitCode

from tests.harness.supervised import daemon

pytestmark = pytest.mark.faults


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "letterlock-test", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip("mounting a file system is not permitted here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


async def test_a_read_only_disk_is_refused(disk: Path) -> None:
    async with daemon(disk) as running:
        assert await running.stop() == ExitCode.OK
    await asyncio.to_thread(_mounted, disk, "ro")
    before = await asyncio.to_thread(_files, disk)
    with pytest.raises(AssertionError, match="DATA_FOLDER_UNUSABLE"):
        async with daemon(disk):
            pass
    await asyncio.to_thread(_mounted, disk, "rw")
    assert await asyncio.to_thread(_files, disk) == before


def _files(disk: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}


def _mounted(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)
