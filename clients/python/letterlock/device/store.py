"""Where a device keeps its state: named rows of bytes, changed in whole transactions.

The rows hold private keys and message content. A FileStore file is readable by its owner alone
(mode 0600); with a `key` each row is sealed with AES-256-GCM under it as well, so that a copy of
the file is worth nothing without the key. This module does not know what a row means.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from letterlock.errors import DeviceError

Changes = Mapping[bytes, bytes | None]
"""Rows to write; None deletes."""

_Result = TypeVar("_Result")

KEY_BYTES = 32
_NONCE_BYTES = 12
_SCHEMA = "CREATE TABLE IF NOT EXISTS rows (name BLOB PRIMARY KEY, value BLOB NOT NULL)"


class DeviceStore(Protocol):
    """The rows of one device. One Device at a time may use them: two would fork its ratchets."""

    async def load(self) -> dict[bytes, bytes]:
        """All rows. Raises DeviceError where they cannot be read."""
        ...

    async def commit(self, changes: Changes) -> None:
        """Make all changes, durably, or none. Raises DeviceError."""
        ...

    async def clear(self) -> None:
        """Delete every row, durably. Raises DeviceError."""
        ...

    async def close(self) -> None:
        """Let go of what load() took."""
        ...


class MemoryStore:
    """Rows that die with the process: for tests and load generators."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    async def load(self) -> dict[bytes, bytes]:
        """A copy of the rows."""
        return dict(self.rows)

    async def commit(self, changes: Changes) -> None:
        """Apply the changes."""
        for name, value in changes.items():
            if value is None:
                self.rows.pop(name, None)
            else:
                self.rows[name] = value

    async def clear(self) -> None:
        """Forget every row."""
        self.rows.clear()

    async def close(self) -> None:
        """Keeps the rows for a later load()."""


class FileStore:
    """Rows in an SQLite file, written with an fsync in each commit, locked while in use."""

    def __init__(self, path: str | os.PathLike[str], *, key: bytes | None = None) -> None:
        """`key`: 32 bytes kept elsewhere; None: the file's mode is its only protection."""
        if key is not None and len(key) != KEY_BYTES:
            raise DeviceError("wrong key", field="key", limit=f"{KEY_BYTES} bytes")
        self._path = Path(path)
        self._seal = _Clear() if key is None else _Sealed(key)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="letterlock-store")
        self._database: sqlite3.Connection | None = None

    async def load(self) -> dict[bytes, bytes]:
        """Open the file (made when missing) and read every row."""
        return await self._run(self._load)

    async def commit(self, changes: Changes) -> None:
        """One durable transaction."""
        await self._run(lambda: self._commit(changes))

    async def clear(self) -> None:
        """Delete every row; SQLite overwrites them (secure_delete)."""
        await self._run(self._clear)

    async def close(self) -> None:
        """Close and unlock the file."""
        await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise DeviceError(
                f"device file cannot be used: {error}",
                field="store",
                limit="a writable file that no other process uses",
            ) from None

    def _load(self) -> dict[bytes, bytes]:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        database = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        try:
            # The lock comes first: a second user of the same ratchets must never get this far.
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA secure_delete=ON")
            database.execute("BEGIN EXCLUSIVE")
            database.execute(_SCHEMA)
            database.execute("COMMIT")
            rows = database.execute("SELECT name, value FROM rows").fetchall()
            opened = dict(self._seal.open(name, value) for name, value in rows)
        except BaseException:
            database.close()
            raise
        self._database = database
        return opened

    def _clear(self) -> None:
        self._opened.execute("DELETE FROM rows")

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise DeviceError("device file is not open")
        return self._database

    def _commit(self, changes: Changes) -> None:
        database = self._opened
        puts = [
            self._seal.seal(name, value) for name, value in changes.items() if value is not None
        ]
        deletes = [(self._seal.name(name),) for name, value in changes.items() if value is None]
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", puts)
            database.executemany("DELETE FROM rows WHERE name = ?", deletes)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


class _Clear:
    """Rows as they are."""

    def name(self, name: bytes) -> bytes:
        return name

    def seal(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        return name, value

    def open(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        return name, value


class _Sealed:
    """Names as keyed hashes, values sealed together with their names."""

    def __init__(self, key: bytes) -> None:
        self._hash_key = hmac.digest(key, b"letterlock device row names", "sha256")
        self._cipher = AESGCM(hmac.digest(key, b"letterlock device row values", "sha256"))

    def name(self, name: bytes) -> bytes:
        return hmac.digest(self._hash_key, name, "sha256")

    def seal(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        hidden, nonce = self.name(name), os.urandom(_NONCE_BYTES)
        clear = len(name).to_bytes(2, "big") + name + value
        return hidden, nonce + self._cipher.encrypt(nonce, clear, hidden)

    def open(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        try:
            clear = self._cipher.decrypt(value[:_NONCE_BYTES], value[_NONCE_BYTES:], name)
        except (InvalidTag, ValueError):
            limit = "the key that the file was written with"
            raise DeviceError("rows do not open", field="key", limit=limit) from None
        end = 2 + int.from_bytes(clear[:2], "big")
        return clear[2:end], clear[end:]
