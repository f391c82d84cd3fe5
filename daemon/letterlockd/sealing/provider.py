"""Where the master key is: the seam for a key service, and the file that is the default.

The master key wraps one long-term key for each scope (see `keyring`) and nothing else. A key
service can stand behind it in two ways: `keys.command` wraps the master key itself, asked once a
start; or another `KeyProvider`, asked a few times per business and start, never per message.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from letterlockd.sealing.errors import MasterKeyFault
from letterlockd.sealing.protection import UNPROTECTED, Protections, key_id, protection_of
from letterlockd.sealing.seal import KEY_BYTES, seal, unseal

__all__ = [
    "FileKeyProvider",
    "KeyProvider",
    "key_text",
    "make_key",
    "named_key",
    "put_in_place",
    "staged",
]

_MAX_FILE_BYTES = 32 * 1024


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
    """The master key in a file of mode 0600, protected as the file says (see `protection`).

    Made on first start, as `protections.new` says. Raises `MasterKeyFault`: MASTER_KEY_PERMISSIONS
    (others than the owner may read or write it, or it cannot be opened or made), MASTER_KEY_INVALID
    (it holds no key), MASTER_KEY_PASSPHRASE, MASTER_KEY_COMMAND.
    Reads the file once, at start; blocking.
    """

    def __init__(self, path: Path, protections: Protections = UNPROTECTED) -> None:
        if not path.exists():
            make_key(path, protections)
        text = key_text(path)
        try:
            self._key = protections.key(text)
        except MasterKeyFault as fault:
            raise MasterKeyFault(
                f"master key {path}: {fault.message}", reason=fault.reason
            ) from None
        self._key_id = key_id(self._key)

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


def staged(path: Path) -> Path:
    """Where the next master key waits until everything is wrapped under it (see `rotation`)."""
    return path.with_name(f"{path.name}.next")


def make_key(path: Path, protections: Protections) -> None:
    """Write a new random key, whole or not at all, and never over an existing one: written aside,
    then linked. Raises `MasterKeyFault`."""
    text = protections.text(secrets.token_bytes(KEY_BYTES))
    try:
        _create(path, text)
    except OSError as error:
        raise _unusable(path, error) from error


def key_text(path: Path) -> bytes:
    """The content of a key file that only its owner can read. Raises `MasterKeyFault`."""
    try:
        with path.open("rb") as reader:
            status = os.fstat(reader.fileno())
            if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o077:
                raise MasterKeyFault(
                    f"master key {path}: must be a file that only its owner can read (mode 0600)",
                    reason="MASTER_KEY_PERMISSIONS",
                )
            text = reader.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _unusable(path, error) from error
    if len(text) > _MAX_FILE_BYTES:
        raise MasterKeyFault(f"master key {path}: is larger than {_MAX_FILE_BYTES} bytes")
    return text


def named_key(path: Path) -> tuple[str, str]:
    """How a key file is protected, and the id of its key: needs no passphrase. Raises
    `MasterKeyFault`."""
    protection, name = protection_of(key_text(path))
    return protection, name or FileKeyProvider(path, UNPROTECTED).key_id


def put_in_place(path: Path) -> None:
    """Let the staged key take the place of `path`, durably, and overwrite the old key's bytes.

    On a file system that writes elsewhere (copy on write, flash) the overwriting reaches only the
    new blocks; that is the disk's affair. Raises `MasterKeyFault`.
    """
    try:
        with path.open("r+b") as old:
            size = os.fstat(old.fileno()).st_size
            staged(path).replace(path)
            _sync_folder(path.parent)
            old.write(bytes(size))
            old.flush()
            os.fsync(old.fileno())
    except OSError as error:
        raise _unusable(path, error) from error


def _create(path: Path, text: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as writer:
            writer.write(text)
            writer.flush()
            os.fsync(writer.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return  # another process made one at the same time: that one counts
    finally:
        aside.unlink()
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unusable(path: Path, error: OSError) -> MasterKeyFault:
    return MasterKeyFault(f"master key {path}: {error.strerror}", reason="MASTER_KEY_PERMISSIONS")
