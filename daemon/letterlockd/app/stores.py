"""The daemon's stores by name, for commands that look at or work on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from letterlockd.errors import EnvironmentFault
from letterlockd.gateway import tables as gateway_tables
from letterlockd.gateway.inbox_rows import INBOX_TABLES
from letterlockd.registry import tables as registry_tables
from letterlockd.relay import tables as relay_tables
from letterlockd.store.port import Table

__all__ = ["STORES", "existing", "present"]

STORES: Mapping[str, Sequence[Table]] = {
    "gateway": (*gateway_tables.TABLES, *INBOX_TABLES),
    "registry": registry_tables.TABLES,
    "relay": relay_tables.TABLES,
}
"""Name of the store's folder and its kind → its rooms' tables."""


def present(data: Path) -> list[str]:
    """The stores that this data folder has."""
    return [name for name in STORES if (data / name / "data.mdb").exists()]


def existing(data: Path) -> list[str]:
    """The same, and at least one. Raises `EnvironmentFault`."""
    names = present(data)
    if not names:
        raise EnvironmentFault(f"{data} holds no store", reason="DATA_FOLDER_FOREIGN")
    return names
