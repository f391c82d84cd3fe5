"""A relay on a store that went back: which pre-keys it may still hand out."""

from __future__ import annotations

import struct

import pytest
from letterlockd.relay import restored
from letterlockd.relay.tables import (
    LAST_RESORT,
    ONE_TIME,
    ONE_TIME_KYBER,
    PRE_KEYS,
    SIGNED,
    pre_key_prefix,
)
from letterlockd.store.history import HISTORY, History
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Put

DEVICES = 700
"""More pre-keys than a step of the walk takes."""


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore([PRE_KEYS, HISTORY])
    keys = [
        pre_key_prefix(slot, kind) + struct.pack(">I", 7)
        for slot in range(1, DEVICES + 1)
        for kind in (SIGNED, LAST_RESORT, ONE_TIME, ONE_TIME_KYBER)
    ]
    await store.commit([[Put(PRE_KEYS, key, b"a public key") for key in keys]])
    return store


async def kinds(store: MemoryStore) -> list[int]:
    rows = await store.scan(PRE_KEYS, limit=10_000)
    return [key[8] for key, _ in rows]


async def test_keys_that_may_have_been_handed_out_are_withdrawn(store: MemoryStore) -> None:
    history = await History.open(store, lambda: 0)
    await history.went_back()
    await restored.settle(store, history)
    assert await kinds(store) == [SIGNED, LAST_RESORT] * DEVICES
    assert (await History.open(store, lambda: 0)).is_settled


async def test_a_store_that_did_not_go_back_keeps_them(store: MemoryStore) -> None:
    await restored.settle(store, await History.open(store, lambda: 0))
    assert len(await kinds(store)) == 4 * DEVICES
