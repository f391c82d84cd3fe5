"""The data folder: made private, refused when it is another program's, locked by one daemon.

The lock (flock) belongs to an open file, and the committer inherits that open file from the
front. So it is held until *both* are gone: a daemon started after `kill -9` of a front waits for
the orphaned committer to finish its transaction, and never writes beside it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from letterlockd.errors import EnvironmentFault

__all__ = ["claim"]

_OURS = {"store.lock", "lock.mdb", "data.mdb"}
_POLL_SECONDS = 0.05


async def claim(folder: Path, *, wait_seconds: float) -> int:
    """Make the folder if need be and lock it; returns the lock's file descriptor.

    Raises `EnvironmentFault`: DATA_FOLDER_UNUSABLE (cannot be made or written),
    DATA_FOLDER_FOREIGN (other files and no store in it), DATA_FOLDER_LOCKED (another daemon has
    held it for `wait_seconds`).
    """
    lock = _opened(folder)
    deadline = asyncio.get_running_loop().time() + wait_seconds
    try:
        while not _locked(lock):
            if asyncio.get_running_loop().time() > deadline:
                raise EnvironmentFault(
                    f"data folder {folder} is in use by another daemon",
                    reason="DATA_FOLDER_LOCKED",
                )
            await asyncio.sleep(_POLL_SECONDS)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _opened(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_foreign(folder)
        return os.open(folder / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EnvironmentFault(
            f"data folder {folder}: {error.strerror}", reason="DATA_FOLDER_UNUSABLE"
        ) from error


def _refuse_foreign(folder: Path) -> None:
    names = {entry.name for entry in folder.iterdir()}
    if "data.mdb" not in names and not names <= _OURS:
        raise EnvironmentFault(
            f"data folder {folder} holds other files and no store", reason="DATA_FOLDER_FOREIGN"
        )


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
