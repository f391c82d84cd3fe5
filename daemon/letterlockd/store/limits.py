"""Bounds of every storage engine, and the one check of a commit against them.

A breach is a bug of the calling room, not bad input (rooms check their own input first), so it
raises `BrokenInvariant`; nothing of the call is queued then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from letterlockd.errors import BrokenInvariant
from letterlockd.store.port import Commit, Put, Table

__all__ = [
    "MAX_BATCH_RECORDS",
    "MAX_CALL_BYTES",
    "MAX_CALL_OPERATIONS",
    "MAX_KEY_BYTES",
    "MAX_SEQUENCE_NAME_BYTES",
    "check_key",
    "check_limit",
    "check_sequence",
    "check_table",
    "measured",
    "tables_by_number",
]

MAX_KEY_BYTES = 500
"""LMDB takes 511; an expiry index key is 9 bytes longer than the record's key."""

MAX_CALL_BYTES = 64 * 1024 * 1024
"""Keys and values of one `commit()` call. All of a call is one transaction, so it is also what a
retry repeats and what the committer holds in memory."""

MAX_CALL_OPERATIONS = 65_536
"""Operations of one `commit()` call: beyond this one call would hold up all others for long."""

MAX_BATCH_RECORDS = 10_000
"""Records that one scan or sweep step may touch."""

MAX_SEQUENCE_NAME_BYTES = 100

_OPERATION_BYTES = 64
"""What an operation costs in memory and on the way besides its key and value."""


def tables_by_number(tables: Sequence[Table]) -> dict[int, Table]:
    """The tables by number; a number out of 1 to 255 or used twice is refused."""
    by_number = {table.number: table for table in tables}
    if len(by_number) != len(tables) or not all(1 <= number <= 255 for number in by_number):
        raise BrokenInvariant("table numbers must be distinct and 1 to 255")
    return by_number


def check_table(tables: Mapping[int, Table], table: Table) -> None:
    """Refuse a table that this store was not opened with."""
    known = tables.get(table.number)
    if known is not table and known != table:
        raise BrokenInvariant(f"table {table.name} does not belong to this store")


def check_key(table: Table, key: bytes) -> None:
    """Refuse a key that is not 1 to `MAX_KEY_BYTES` bytes."""
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise BrokenInvariant(f"key of table {table.name}: 1 to {MAX_KEY_BYTES} bytes")


def check_limit(limit: int) -> None:
    """Refuse a scan or sweep limit that is not 1 to `MAX_BATCH_RECORDS`."""
    if not 1 <= limit <= MAX_BATCH_RECORDS:
        raise BrokenInvariant(f"limit: 1 to {MAX_BATCH_RECORDS} records")


def check_sequence(name: str, count: int) -> None:
    """Refuse a sequence name of 0 or more than 100 bytes, and a count below 1."""
    if count < 1 or not 1 <= len(name.encode()) <= MAX_SEQUENCE_NAME_BYTES:
        raise BrokenInvariant(
            f"sequence: a name of 1 to {MAX_SEQUENCE_NAME_BYTES} bytes, a count of at least 1"
        )


def measured(tables: Mapping[int, Table], commits: Sequence[Commit]) -> int:
    """The size in bytes that a `commit()` call counts for, after checking all of it."""
    size = operations = 0
    known = tables.get
    for commit in commits:
        operations += len(commit)
        for operation in commit:  # some ten times a message, so without a call for each
            table, key = operation[0], operation[1]
            if known(table.number) is not table:
                check_table(tables, table)
            length = len(key)
            if not 1 <= length <= MAX_KEY_BYTES:
                check_key(table, key)
            size += length
            if type(operation) is Put:
                size += len(operation[2])
                if (operation[3] > 0) is not table.expires or operation[3] < 0:
                    _refuse_expiry(table)
    size += operations * _OPERATION_BYTES
    if operations > MAX_CALL_OPERATIONS or size > MAX_CALL_BYTES:
        raise BrokenInvariant(
            f"commit call: at most {MAX_CALL_OPERATIONS} operations and {MAX_CALL_BYTES} bytes"
        )
    return size


def _refuse_expiry(table: Table) -> NoReturn:
    required = "required" if table.expires else "not allowed"
    raise BrokenInvariant(f"put into table {table.name}: expiry time {required}")
