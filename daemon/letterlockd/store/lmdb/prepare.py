"""Start of the writer: is this folder ours, which schema has it, and bring it to today's.

no "kind" yet, nothing foreign ──▶ found the store (its meta records in one transaction, last)
other kind, or not ours        ──▶ DATA_FOLDER_FOREIGN
schema newer than the program  ──▶ SCHEMA_TOO_NEW
schema older                   ──▶ all migrations and the new version in one transaction
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb

from letterlockd.errors import EnvironmentFault
from letterlockd.store.lmdb.engine import Engine, grow
from letterlockd.store.lmdb.schema import (
    EXPIRY_DB,
    KIND_KEY,
    MAX_DATABASES,
    META_DB,
    NUMBER,
    SCHEMA_KEY,
    STORE_ID_KEY,
    table_db,
    table_key,
)
from letterlockd.store.lmdb.transaction import Databases, Transaction
from letterlockd.store.lmdb.wire import Start

__all__ = ["open_engine"]


def open_engine(start: Start) -> Engine:
    """The engine of a prepared store. Raises `EnvironmentFault` with the reasons drawn above."""
    env = _open_environment(start)
    env.reader_check()
    names = _databases(env)
    _refuse_foreign(env, names, start)
    databases = _open_databases(env, names, start)
    while True:
        try:
            with env.begin(write=True, buffers=True) as txn:
                _bring_up_to_date(txn, databases, start)
            break
        except lmdb.MapFullError:
            grow(env, start.max_size_bytes)
    _sync_folder(start.folder)
    return Engine(env, databases, kind=start.kind, max_size_bytes=start.max_size_bytes)


def _open_environment(start: Start) -> lmdb.Environment:
    limit = start.max_size_bytes
    try:
        return lmdb.open(
            start.folder,
            map_size=start.map_size if limit is None else min(start.map_size, limit),
            max_dbs=MAX_DATABASES,
            mode=0o600,
            readahead=False,
        )
    except (lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError) as error:
        raise _foreign(f"data.mdb is damaged or no store ({error})") from error


def _databases(env: lmdb.Environment) -> list[bytes]:
    with env.begin() as txn:
        return [bytes(name) for name, _ in txn.cursor()]


def _open_databases(env: lmdb.Environment, names: Sequence[bytes], start: Start) -> Databases:
    """Also tables that this program no longer has: migrations read them, the sweeper ends them."""
    declared = {number for number, _, _ in start.tables}
    found = {number for number in range(1, 256) if table_db(number) in names}
    return Databases(
        meta=env.open_db(META_DB),
        expiry=env.open_db(EXPIRY_DB),
        tables={number: env.open_db(table_db(number)) for number in declared | found},
    )


def _refuse_foreign(env: lmdb.Environment, names: Sequence[bytes], start: Start) -> None:
    ours = {META_DB, EXPIRY_DB, *(table_db(number) for number in range(1, 256))}
    if not ours.issuperset(names):
        raise _foreign("data.mdb holds another program's data")
    kind = _meta(env, KIND_KEY) if META_DB in names else None
    if kind is not None and kind != start.kind.encode():
        raise _foreign(f"it is the store of a {kind.decode()}, not of a {start.kind}")


def _meta(env: lmdb.Environment, key: bytes) -> bytes | None:
    meta = env.open_db(META_DB, create=False)
    with env.begin() as txn:
        found: bytes | None = txn.get(key, db=meta)
    return found


def _bring_up_to_date(txn: Any, databases: Databases, start: Start) -> None:
    stored = txn.get(SCHEMA_KEY, db=databases.meta)
    if stored is None:
        txn.put(STORE_ID_KEY, os.urandom(16), db=databases.meta)
        txn.put(KIND_KEY, start.kind.encode(), db=databases.meta)
    else:
        (version,) = NUMBER.unpack(stored)
        _migrate(Transaction(txn, databases), version, start)
        if version == start.schema_version:
            _refuse_reused_numbers(txn, databases, start.tables)
    _put_if_changed(txn, databases, SCHEMA_KEY, NUMBER.pack(start.schema_version))
    for number, name, expires in start.tables:
        _put_if_changed(txn, databases, table_key(number), _described(name, expires))


def _migrate(transaction: Transaction, version: int, start: Start) -> None:
    if version > start.schema_version:
        raise EnvironmentFault(
            f"the store has schema version {version}, this program knows {start.schema_version}",
            reason="SCHEMA_TOO_NEW",
        )
    steps = dict(start.migrations)
    for step in range(version, start.schema_version):
        if step not in steps:
            raise EnvironmentFault(
                f"the store has schema version {version}, this program can no longer bring it "
                f"to {start.schema_version}",
                reason="SCHEMA_TOO_OLD",
            )
        module, _, function = steps[step].partition(":")
        getattr(importlib.import_module(module), function)(transaction)


def _refuse_reused_numbers(
    txn: Any, databases: Databases, tables: Sequence[tuple[int, str, bool]]
) -> None:
    for number, name, expires in tables:
        stored = txn.get(table_key(number), db=databases.meta)
        if stored is not None and bytes(stored) != _described(name, expires):
            raise _foreign(f"table number {number} is {bytes(stored)[1:].decode()}, not {name}")


def _put_if_changed(txn: Any, databases: Databases, key: bytes, value: bytes) -> None:
    stored = txn.get(key, db=databases.meta)
    if stored is None or bytes(stored) != value:
        txn.put(key, value, db=databases.meta)


def _described(name: str, expires: bool) -> bytes:
    return (b"1" if expires else b"0") + name.encode()


def _sync_folder(folder: str) -> None:
    """A new file survives a power cut only when its folder is on disk as well."""
    for path in (folder, str(Path(folder).parent)):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _foreign(text: str) -> EnvironmentFault:
    return EnvironmentFault(f"the data folder is not usable: {text}", reason="DATA_FOLDER_FOREIGN")
