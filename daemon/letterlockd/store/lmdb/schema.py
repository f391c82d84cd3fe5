"""What is on disk, byte by byte. Change it only with a schema version and a migration.

    store folder, mode 0700
    ├── store.lock    locked (flock) as long as a daemon or its committer uses the folder
    ├── lock.mdb      LMDB's table of readers
    └── data.mdb
        ├── meta
        │   ├── "kind"               text, e.g. "gateway"
        │   ├── "schema"             be64, version of the tables' meaning
        │   ├── "id"                 16 random bytes, made with the store
        │   ├── "table/" be8 number  "1" or "0" (records expire or not), then the table's name
        │   └── "sequence/" name     be64, the next number that is free
        ├── expiry
        │   └── be8 table number, be64 expiry ms, key → empty
        └── t001 … t255              one for each table, by its number
            └── key → be64 version, be64 expiry ms (0 = never), value

An expiry entry exists exactly for each record whose expiry is not 0 (I4); `verify` checks it.
Which records the tables hold is told by the rooms that own them.
"""

from __future__ import annotations

import struct

from letterlockd.errors import EnvironmentFault

__all__ = [
    "EXPIRY_DB",
    "HEADER",
    "KIND_KEY",
    "MAX_DATABASES",
    "META_DB",
    "NUMBER",
    "SCHEMA_KEY",
    "STORE_ID_KEY",
    "expiry_key",
    "sequence_key",
    "split_expiry_key",
    "table_db",
    "table_key",
]

META_DB = b"meta"
EXPIRY_DB = b"expiry"

MAX_DATABASES = 257
"""Those two, and table numbers 1 to 255."""

KIND_KEY = b"kind"
SCHEMA_KEY = b"schema"
STORE_ID_KEY = b"id"

HEADER = struct.Struct(">QQ")
"""In front of every value: version, expiry in milliseconds."""

NUMBER = struct.Struct(">Q")

_EXPIRY_PREFIX = struct.Struct(">BQ")


def table_db(number: int) -> bytes:
    """Name of the LMDB database of a table: by number, so that renaming a table costs nothing."""
    return b"t%03d" % number


def table_key(number: int) -> bytes:
    """Key in `meta` of the description of a table."""
    return b"table/%c" % number


def sequence_key(name: str) -> bytes:
    """Key in `meta` of a sequence."""
    return b"sequence/" + name.encode()


def expiry_key(expires_at_ms: int, number: int, key: bytes) -> bytes:
    """Key in `expiry` of a record: sorts by table, then time, so that what is due in a table is
    one range, however much is due in others."""
    return _EXPIRY_PREFIX.pack(number, expires_at_ms) + key


def split_expiry_key(entry: bytes) -> tuple[int, int, bytes]:
    """Expiry time, table number and record key of an `expiry` entry. Raises `EnvironmentFault`
    (STORAGE_DAMAGED) for one that a torn page has cut."""
    if len(entry) <= _EXPIRY_PREFIX.size:
        raise EnvironmentFault(
            "an expiry entry without time and key; run verify", reason="STORAGE_DAMAGED"
        )
    number, expires_at_ms = _EXPIRY_PREFIX.unpack_from(entry)
    return expires_at_ms, number, entry[_EXPIRY_PREFIX.size :]
