from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from letterlockd.errors import BrokenInvariant
from letterlockd.sealing import keyring as keyring_module
from letterlockd.sealing.errors import KeyDestroyed, MasterKeyFault, SealBroken
from letterlockd.sealing.keyring import DAY_KEYS, DAY_MS, SCOPE_KEYS, STORE_SCOPE, TABLES, Keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Put, StoreUnavailable

from tests.harness.clock import FakeClock

BUSINESS = bytes(range(16))
OTHER = bytes(16)
START_MS = 20_000 * DAY_MS + 1_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START_MS)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(TABLES)


@pytest.fixture
def provider(tmp_path: Path) -> FileKeyProvider:
    return FileKeyProvider(tmp_path / "master.key")


@pytest.fixture
async def ring(store: MemoryStore, provider: FileKeyProvider, clock: FakeClock) -> Keyring:
    return await Keyring.open(store, provider, clock)


async def test_keys_are_the_same_after_a_restart(
    ring: Keyring, store: MemoryStore, provider: FileKeyProvider, clock: FakeClock
) -> None:
    scope_key, day_key = await ring.scope_key(BUSINESS), await ring.day_key(BUSINESS, START_MS)
    again = await Keyring.open(store, provider, clock)
    assert await again.scope_key(BUSINESS) == scope_key
    assert await again.day_key(BUSINESS, START_MS) == day_key
    assert await again.day_key_by_id(BUSINESS, day_key.id) == day_key


async def test_every_scope_and_day_has_its_own_key(ring: Keyring) -> None:
    keys = {
        await ring.scope_key(STORE_SCOPE),
        await ring.scope_key(BUSINESS),
        await ring.scope_key(OTHER),
        *[
            (await ring.day_key(scope, START_MS + days * DAY_MS)).key
            for scope in (STORE_SCOPE, BUSINESS, OTHER)
            for days in (0, 1, 30)
        ],
    }
    assert len(keys) == 12
    assert {len(key) for key in keys} == {32}
    morning, night = START_MS, START_MS + DAY_MS - 1_001
    assert await ring.day_key(OTHER, morning) == await ring.day_key(OTHER, night)
    assert await ring.day_key(OTHER, night) != await ring.day_key(OTHER, night + 1)


async def test_racing_first_uses_get_one_key(
    store: MemoryStore, provider: FileKeyProvider, clock: FakeClock
) -> None:
    rings = [await Keyring.open(store, provider, clock) for _ in range(2)]
    day_keys = await asyncio.gather(
        *(ring.day_key(BUSINESS, START_MS) for ring in rings for _ in range(5))
    )
    assert len({(key.id, key.key) for key in day_keys}) == 1
    assert await rings[0].scope_key(BUSINESS) == await rings[1].scope_key(BUSINESS)


async def test_no_key_is_handed_out_that_is_not_durable(ring: Keyring, store: MemoryStore) -> None:
    store.lose()
    with pytest.raises(StoreUnavailable):
        await ring.day_key(BUSINESS, START_MS)
    with pytest.raises(StoreUnavailable):
        await ring.scope_key(BUSINESS)


async def test_the_end_of_its_day_destroys_a_key_in_store_and_cache(
    ring: Keyring, store: MemoryStore, provider: FileKeyProvider, clock: FakeClock
) -> None:
    expires_at_ms = START_MS + 2 * DAY_MS
    day_key = await ring.day_key(BUSINESS, expires_at_ms)
    end = (expires_at_ms // DAY_MS + 1) * DAY_MS
    clock.set_wall(end - 1)
    assert (await store.sweep(clock.now_ms(), limit=9)).removed == ()
    assert await ring.day_key_by_id(BUSINESS, day_key.id) == day_key
    clock.set_wall(end)
    for use in (ring.day_key_by_id(BUSINESS, day_key.id), ring.day_key(BUSINESS, expires_at_ms)):
        with pytest.raises(KeyDestroyed) as caught:
            await use
        assert caught.value.reason == "KEY_DESTROYED"
    assert (await store.sweep(end, limit=9)).removed == (("day-keys", 1),)
    ring.forget_before(end)
    clock.set_wall(START_MS)  # even when the clock is set back, the key stays destroyed
    for keyring in (ring, await Keyring.open(store, provider, clock)):
        with pytest.raises(KeyDestroyed):
            await keyring.day_key_by_id(BUSINESS, day_key.id)


async def test_a_key_made_again_for_a_destroyed_day_is_another_one(
    ring: Keyring, store: MemoryStore, clock: FakeClock
) -> None:
    old = await ring.day_key(BUSINESS, START_MS)
    await store.sweep(START_MS + DAY_MS, limit=9)
    ring.forget_before(START_MS + DAY_MS)
    new = await ring.day_key(BUSINESS, START_MS)
    assert (new.id, new.key) != (old.id, old.key)
    with pytest.raises(KeyDestroyed):
        await ring.day_key_by_id(BUSINESS, old.id)
    assert await ring.day_key_by_id(BUSINESS, new.id) == new


async def test_another_scope_does_not_find_the_key(ring: Keyring) -> None:
    day_key = await ring.day_key(BUSINESS, START_MS)
    with pytest.raises(KeyDestroyed):
        await ring.day_key_by_id(OTHER, day_key.id)


@pytest.mark.parametrize("id_", [b"", bytes(7), bytes(9)])
async def test_malformed_ids(ring: Keyring, id_: bytes) -> None:
    with pytest.raises(SealBroken):
        await ring.day_key_by_id(BUSINESS, id_)


@pytest.mark.parametrize("scope", [b"x", bytes(15), bytes(17)])
async def test_malformed_scopes(ring: Keyring, scope: bytes) -> None:
    with pytest.raises(BrokenInvariant):
        await ring.scope_key(scope)
    with pytest.raises(BrokenInvariant):
        await ring.day_key(scope, START_MS)


async def test_a_wrong_master_key_is_found_at_start_and_both_are_named(
    ring: Keyring, store: MemoryStore, provider: FileKeyProvider, clock: FakeClock, tmp_path: Path
) -> None:
    wrong = FileKeyProvider(tmp_path / "wrong.key")
    with pytest.raises(MasterKeyFault) as caught:
        await Keyring.open(store, wrong, clock)
    assert caught.value.reason == "MASTER_KEY_WRONG"
    assert provider.key_id in caught.value.message
    assert wrong.key_id in caught.value.message


async def test_records_moved_to_another_scope_do_not_open(
    ring: Keyring, store: MemoryStore, provider: FileKeyProvider, clock: FakeClock
) -> None:
    day_key = await ring.day_key(BUSINESS, START_MS)
    for table in (SCOPE_KEYS, DAY_KEYS):
        ((key, record),) = await store.scan(table, limit=9)
        moved = key.replace(BUSINESS, OTHER)
        await store.commit([[Put(table, moved, record.value, record.expires_at_ms)]])
    thief = await Keyring.open(store, provider, clock)
    with pytest.raises(SealBroken):
        await thief.day_key_by_id(OTHER, day_key.id)


async def test_caches_are_bounded(
    store: MemoryStore, provider: FileKeyProvider, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring_module, "_MAX_DAY_KEYS", 3)
    monkeypatch.setattr(keyring_module, "_MAX_SCOPE_KEYS", 2)
    ring = await Keyring.open(store, provider, clock)
    first = [await ring.day_key(bytes((n,)) * 16, START_MS) for n in range(10)]
    assert (len(ring._day_keys), len(ring._scope_keys)) == (3, 2)
    assert [await ring.day_key(bytes((n,)) * 16, START_MS) for n in range(10)] == first
