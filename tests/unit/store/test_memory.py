from __future__ import annotations

import pytest
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Delete, Put, Store, StoreFull, StoreUnavailable

from tests.unit.store.contract import PEOPLE, TABLES, StoreContract


@pytest.fixture
def store() -> Store:
    return MemoryStore(TABLES)


class TestMemoryStore(StoreContract):
    pass


async def test_full_refuses_writes_and_keeps_nothing_of_them() -> None:
    store = MemoryStore(TABLES)
    await store.commit([[Put(PEOPLE, b"old", b"v")]])
    store.full = True
    with pytest.raises(StoreFull):
        await store.commit([[Put(PEOPLE, b"new", b"v")], [Delete(PEOPLE, b"old")]])
    assert await store.count(PEOPLE) == 1
    assert await store.commit([[Delete(PEOPLE, b"old")]]) == [None]


async def test_lost() -> None:
    store = MemoryStore(TABLES)
    store.lose()
    with pytest.raises(StoreUnavailable):
        await store.get(PEOPLE, b"k")
