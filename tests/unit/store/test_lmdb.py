from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.store.lmdb.verify import verify

from tests.unit.store.contract import TABLES, StoreContract


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LmdbStore]:
    store = await LmdbStore.open(tmp_path / "store", TABLES, kind="test", schema_version=1)
    yield store
    await store.aclose()
    assert verify(tmp_path / "store").differences == []


class TestLmdbStore(StoreContract):
    pass
