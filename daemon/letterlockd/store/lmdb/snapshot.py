"""One consistent state of a store, copied while a daemon writes on.

The copy holds what the transaction sees and nothing else: free pages, in which deleted records
lie until they are used again, are left out. The snapshot is held until it is copied, so the file
of a busy daemon grows meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb

from letterlockd.errors import EnvironmentFault
from letterlockd.store.lmdb.schema import (
    HEADER,
    KIND_KEY,
    MAX_DATABASES,
    META_DB,
    NUMBER,
    SCHEMA_KEY,
    STORE_ID_KEY,
    table_db,
)

__all__ = ["Snapshot", "open_whole"]


class Snapshot:
    """The state of the store in `folder` from now on, until `close`.

    Raises `EnvironmentFault`: DATA_FOLDER_FOREIGN when no store is there, STORAGE_DAMAGED when it
    cannot be read, COPY_FAILED when the copy cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._env = open_whole(folder)
        try:
            self._txn = self._env.begin()
            self._meta = self._env.open_db(META_DB, txn=self._txn, create=False)
        except lmdb.Error as error:
            self._env.close()
            raise _damaged(folder, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def position(self) -> int:
        """LMDB's number of the last commit in it."""
        return int(self._txn.id())

    @property
    def kind(self) -> str:
        """Whose store it is."""
        return self._described(KIND_KEY).decode("ascii", "replace")

    @property
    def schema(self) -> int:
        """Version of the tables' meaning."""
        return int(NUMBER.unpack(self._described(SCHEMA_KEY))[0])

    @property
    def store_id(self) -> str:
        """Made with the store, in hex."""
        return self._described(STORE_ID_KEY).hex()

    def value(self, table_number: int, key: bytes) -> bytes | None:
        """The value of a record."""
        try:
            database = self._env.open_db(table_db(table_number), txn=self._txn, create=False)
        except lmdb.NotFoundError:
            return None
        record = self._txn.get(key, db=database)
        return None if record is None else bytes(record[HEADER.size :])

    def copy(self, folder: Path) -> None:
        """Write it into an empty folder, as a store of its own."""
        try:
            self._env.copy(str(folder), compact=True, txn=self._txn)
        except (lmdb.CorruptedError, lmdb.PageNotFoundError) as error:
            raise _damaged(self._folder, error) from error
        except (lmdb.Error, OSError) as error:
            raise EnvironmentFault(
                f"{folder} cannot be written: {error}", reason="COPY_FAILED"
            ) from error

    def close(self) -> None:
        """Let the snapshot go."""
        self._txn.abort()
        self._env.close()

    def _described(self, key: bytes) -> bytes:
        found = self._txn.get(key, db=self._meta)
        if found is None:
            raise EnvironmentFault(
                f"the store in {self._folder} was not finished", reason="DATA_FOLDER_FOREIGN"
            )
        return bytes(found)


def open_whole(folder: Path) -> lmdb.Environment:
    """The environment of the store in `folder`, to be read from one end to the other. Raises
    `EnvironmentFault` (DATA_FOLDER_FOREIGN)."""
    try:
        return lmdb.open(
            str(folder), readonly=True, create=False, max_dbs=MAX_DATABASES, readahead=True
        )
    except lmdb.Error as error:
        raise EnvironmentFault(
            f"no store in {folder} ({error})", reason="DATA_FOLDER_FOREIGN"
        ) from error


def _damaged(folder: Path, error: lmdb.Error) -> EnvironmentFault:
    return EnvironmentFault(f"the store in {folder} is damaged ({error})", reason="STORAGE_DAMAGED")
