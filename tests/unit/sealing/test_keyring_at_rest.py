"""I5: the keyring over the real engine leaves no key on disk that is not sealed."""

from __future__ import annotations

from pathlib import Path

import pytest
from letterlockd.sealing.errors import KeyDestroyed
from letterlockd.sealing.keyring import DAY_MS, TABLES, Keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.lmdb.front import LmdbStore

from tests.harness.clock import FakeClock

BUSINESS = bytes(range(16))


async def test_keys_survive_a_restart_sealed_and_die_with_their_day(tmp_path: Path) -> None:
    clock = FakeClock(20_000 * DAY_MS)
    provider = FileKeyProvider(tmp_path / "master.key")
    seen = []
    for _ in range(2):
        store = await LmdbStore.open(tmp_path / "store", TABLES, kind="test", schema_version=1)
        ring = await Keyring.open(store, provider, clock)
        day_key = await ring.day_key(BUSINESS, clock.now_ms())
        seen.append((await ring.scope_key(BUSINESS), day_key))
        await store.aclose()
    assert seen[0] == seen[1]
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "store").iterdir())
    scope_key, day_key = seen[0]
    for key in (scope_key, day_key.key, provider._key):
        assert key not in on_disk

    clock.set_wall(20_001 * DAY_MS)
    store = await LmdbStore.open(tmp_path / "store", TABLES, kind="test", schema_version=1)
    assert (await store.sweep(clock.now_ms(), limit=9)).removed == (("day-keys", 1),)
    clock.set_wall(20_000 * DAY_MS)
    ring = await Keyring.open(store, provider, clock)
    with pytest.raises(KeyDestroyed):
        await ring.day_key_by_id(BUSINESS, day_key.id)
    await store.aclose()
