"""Where the master key is: the seam for a key service, and the file that is the default.

The master key wraps one long-term key for each scope (see `keyring`) and nothing else, so a key
service is asked a few times per business and start, never per message.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from letterlockd.sealing.errors import MasterKeyFault
from letterlockd.sealing.seal import KEY_BYTES, seal, subkey, unseal

__all__ = ["FileKeyProvider", "KeyProvider"]


class KeyProvider(Protocol):
    """Wraps keys under a master key that it does not give away."""

    @property
    def key_id(self) -> str:
        """Names the master key without telling it; stored beside what it wrapped."""
        ...

    async def wrap(self, key: bytes, context: bytes) -> bytes:
        """Encrypt `key`, bound to `context`."""
        ...

    async def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """The key again; raises `SealBroken` if it was altered or wrapped by another master key."""
        ...


class FileKeyProvider:
    """The master key in a file of mode 0600: 32 random bytes in base64, one line.

    Made on first start. Raises `MasterKeyFault`: MASTER_KEY_PERMISSIONS (others than the owner
    may read or write it, or it cannot be opened or made), MASTER_KEY_INVALID (not 32 bytes of
    base64).
    Reads the file once, at start; blocking.
    """

    def __init__(self, path: Path) -> None:
        try:
            if not path.exists():
                _create(path)
            self._key = _read(path)
        except OSError as error:
            raise MasterKeyFault(
                f"master key {path}: {error.strerror}", reason="MASTER_KEY_PERMISSIONS"
            ) from error
        self._key_id = subkey(self._key, "letterlock master key id")[:8].hex()

    def __repr__(self) -> str:
        return f"FileKeyProvider(key_id={self._key_id!r})"

    @property
    def key_id(self) -> str:
        """16 hexadecimal digits derived from the key."""
        return self._key_id

    async def wrap(self, key: bytes, context: bytes) -> bytes:
        """Seal `key` under the master key."""
        return seal(self._key, key, context)

    async def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Open what `wrap` made."""
        return unseal(self._key, wrapped, context)


def _create(path: Path) -> None:
    """Whole or not at all, and never over an existing key: written aside, then linked."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as writer:
            writer.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            writer.flush()
            os.fsync(writer.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return  # another process made one at the same time: that one counts
    finally:
        aside.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> bytes:
    with path.open("rb") as reader:
        status = os.fstat(reader.fileno())
        if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o077:
            raise MasterKeyFault(
                f"master key {path}: must be a file that only its owner can read (mode 0600)",
                reason="MASTER_KEY_PERMISSIONS",
            )
        text = reader.read(256)
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise MasterKeyFault(
            f"master key {path}: must hold {KEY_BYTES} bytes in base64", reason="MASTER_KEY_INVALID"
        )
    return key
