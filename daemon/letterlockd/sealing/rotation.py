"""Turns the master key while the daemon runs, resumable at every point.

    <key>.next appears ──▶ every keyring wraps under it, still opens under <key>
                       ──▶ scope keys move to it, a few at a time ──▶ stores are bound to it
                       ──▶ it takes the place of <key>; the old key is overwritten and forgotten

The file is the request, the progress and the proof of the right to ask: whoever can write `keys/`
owns the daemon already, and no network surface is needed. It is a complete key before it is seen
(see `provider.make_key`), so a crash at any point leaves either both files, and the next start goes
on, or only the new one, and all is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from letterlockd import failpoints
from letterlockd.errors import BusyError
from letterlockd.sealing.errors import MasterKeyFault
from letterlockd.sealing.keyring import Keyring
from letterlockd.sealing.protection import Protections
from letterlockd.sealing.provider import FileKeyProvider, put_in_place, staged

__all__ = ["MasterRotation", "open_master_keys"]

_log = logging.getLogger(__name__)  # `keys rotate`, which sets up no logs, stays silent

_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 30.0
_STEP = 50
"""Scope keys between two looks at other work: each is a transaction of at most 33 records."""


def open_master_keys(
    path: Path, protections: Protections
) -> tuple[FileKeyProvider, FileKeyProvider | None]:
    """The master key to wrap under, and the former one while a rotation is not finished. Blocking.
    Raises `MasterKeyFault`."""
    current = FileKeyProvider(path, protections)
    if not staged(path).exists():
        return current, None
    return FileKeyProvider(staged(path), protections), current


class MasterRotation:
    """Watches for the next key of one master key file, for the keyrings of its stores."""

    def __init__(
        self,
        path: Path,
        protections: Protections,
        keyrings: Sequence[Keyring],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = path
        self._protections = protections
        self._keyrings = keyrings
        self._sleep = sleep

    async def run(self) -> None:
        """Rotate whenever a key is staged, until cancelled. Raises what a lost store raises."""
        while True:
            pause = _LOOK_SECONDS
            try:
                if await asyncio.to_thread(staged(self._path).exists):
                    await self.rotate()
            except (MasterKeyFault, BusyError) as fault:
                _log.warning(
                    "master_key_rotation_waits",
                    extra={"reason": fault.reason, "why": fault.message},
                )
                pause = _RETRY_SECONDS
            await self._sleep(pause)

    async def rotate(self) -> None:
        """Bring everything under the staged key, and put it in the old one's place. Raises
        `MasterKeyFault` when it cannot be opened, `StoreFull`."""
        path = staged(self._path)
        following = await asyncio.to_thread(FileKeyProvider, path, self._protections)
        for keyring in self._keyrings:
            await keyring.turn(following)
        for keyring in self._keyrings:
            after: bytes | None = b""
            while after is not None:
                after = await keyring.renew(after, _STEP)
                await asyncio.sleep(0)
            await keyring.settle()
        failpoints.hit("sealing.rotate.before_replace")
        await asyncio.to_thread(put_in_place, self._path)
        failpoints.hit("sealing.rotate.after_replace")
        for keyring in self._keyrings:
            keyring.forget_former()
        _log.info("master_key_rotated", extra={"key_id": following.key_id})
