"""Data of earlier schema versions opens, migrates, and every seal of it opens (tests/data)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from letterlockd.app.backup import restore
from letterlockd.app.manifest import read_manifest
from letterlockd.app.parts import SCHEMA_VERSION
from letterlockd.app.verify import verify_one
from letterlockd.settings import Settings

DATA = Path(__file__).parents[2] / "data"
EXPECTED = {
    "gateway": {"conversations": 2, "numbers": 2, "outbox": 0},
    "registry": {"businesses": 1, "tokens": 1},
    "relay": {"accounts": 3, "numbers": 3, "mailboxes": 3},
}


def test_there_is_data_of_every_schema_version() -> None:
    kept = {path.name for path in DATA.glob("schema-*")}
    assert kept == {f"schema-{version}" for version in range(1, SCHEMA_VERSION + 1)}


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
async def test_old_data_opens_whole(tmp_path: Path, version: int) -> None:
    source = tmp_path / "source"
    shutil.copytree(DATA / f"schema-{version}", source)
    for path in (source / "keys").rglob("*.*"):
        path.chmod(0o600)  # which a version control system does not keep
    assert {stored.schema for stored in read_manifest(source).stores} == {version}
    settings = Settings(data_folder=tmp_path / "data")
    await restore(settings, source)
    for name, records in EXPECTED.items():
        found = await asyncio.to_thread(
            verify_one, settings, settings.data_folder, name, seals=True
        )
        assert not found.wrong
        assert {table: found.records[table] for table in records} == records
