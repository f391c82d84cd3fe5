"""Lists the record of deletions. Needs no key, and so checks nothing: `verify` does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from letterlockd.app.stores import existing
from letterlockd.records.v1.deletions_pb2 import DeletionRecord
from letterlockd.sealing.deletions import DELETIONS, HOUR_MS
from letterlockd.store.lmdb.reader import Reader

__all__ = ["DeletedHour", "deleted_hours"]


@dataclass(frozen=True, slots=True)
class DeletedHour:
    """What one store removed in one hour: records by table. `hour` and `due_until` are UTC, `mac`
    names the entry with all before it."""

    store: str
    hour: str
    due_until: str
    removed: dict[str, int]
    mac: str

    def line(self) -> str:
        """For people."""
        counts = ", ".join(f"{table} {count}" for table, count in self.removed.items())
        return f"{self.hour} {self.store}: {counts} [{self.mac[:16]}]"

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return asdict(self)


def deleted_hours(data: Path) -> list[DeletedHour]:
    """The whole record of the stores in a data folder or a backup, oldest first in each. Raises
    `EnvironmentFault`."""
    found: list[DeletedHour] = []
    for name in existing(data):
        reader = Reader(data / name, [DELETIONS])
        try:
            found += [
                _hour(name, key, record.value) for key, record in reader.records(DELETIONS.number)
            ]
        finally:
            reader.close()
    return found


def _hour(store: str, key: bytes, value: bytes) -> DeletedHour:
    entry = DeletionRecord.FromString(value)
    return DeletedHour(
        store=store,
        hour=_text(int.from_bytes(key, "big") * HOUR_MS),
        due_until=_text(entry.due_until_ms),
        removed={one.table: one.count for one in entry.removed},
        mac=entry.mac.hex(),
    )


def _text(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC).isoformat(timespec="seconds")
