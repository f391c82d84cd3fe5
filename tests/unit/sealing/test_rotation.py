"""Rotation of the master key: what opens before, at each crash and after, and what never again."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from letterlockd import failpoints
from letterlockd.failpoints import InjectedFault
from letterlockd.sealing.errors import MasterKeyFault, SealBroken
from letterlockd.sealing.keyring import (
    DAY_KEYS,
    DAY_MS,
    SCOPE_KEYS,
    STORE_SCOPE,
    TABLES,
    Keyring,
    open_day_key,
)
from letterlockd.sealing.protection import UNPROTECTED
from letterlockd.sealing.provider import FileKeyProvider, make_key, staged
from letterlockd.sealing.rotation import MasterRotation, open_master_keys
from letterlockd.sealing.seal import place
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Put

from tests.harness.clock import FakeClock

SHOP, NAMES = b"s" * 16, b"n" * 16
NOW_MS = 20_000 * DAY_MS


class House:
    """Two stores under one master key file, as the gateway has them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gateway.key"
        self.stores = [MemoryStore(TABLES), MemoryStore(TABLES)]
        self.clock = FakeClock(NOW_MS)
        self.rings: list[Keyring] = []

    async def start(self) -> None:
        provider, former = open_master_keys(self.path, UNPROTECTED)
        self.rings = [
            await Keyring.open(store, provider, self.clock, former=former) for store in self.stores
        ]

    async def keys(self) -> list[bytes]:
        """What messages and names depend on: it may never change."""
        found = []
        for ring in self.rings:
            found += [await ring.scope_key(NAMES), await ring.scope_key(STORE_SCOPE)]
            for day in range(3):
                found.append((await ring.day_key(SHOP, NOW_MS + day * DAY_MS)).key)
        return found

    async def rotate(self) -> None:
        make_key(staged(self.path), UNPROTECTED)
        await self.go_on()

    async def go_on(self) -> None:
        await MasterRotation(self.path, UNPROTECTED, self.rings).rotate()


@pytest.fixture
async def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    await house.start()
    return house


async def wrapped_under(provider: FileKeyProvider, store: MemoryStore) -> int:
    """How many scope keys this master key opens."""
    found = 0
    for key, record in await store.scan(SCOPE_KEYS, limit=100):
        try:
            await provider.unwrap(record.value, place(SCOPE_KEYS.number, key))
        except SealBroken:
            continue
        found += 1
    return found


async def test_messages_and_names_stay_and_the_old_key_opens_nothing(house: House) -> None:
    keys = await house.keys()
    old = FileKeyProvider(house.path)
    old_text = house.path.read_bytes()
    assert [await wrapped_under(old, store) for store in house.stores] == [3, 3]
    await house.rotate()
    assert await house.keys() == keys
    assert [await wrapped_under(old, store) for store in house.stores] == [0, 0]
    assert house.path.read_bytes() != old_text
    assert not staged(house.path).exists()
    await house.start()
    assert await house.keys() == keys
    house.path.write_bytes(old_text)
    with pytest.raises(MasterKeyFault) as caught:
        await house.start()
    assert caught.value.reason == "MASTER_KEY_WRONG"


async def test_the_old_key_is_overwritten_and_forgotten(house: House) -> None:
    """Its bytes are gone from the disk it was on, and the running gateway has it no more."""
    await house.keys()
    await house.start()  # with nothing in memory but the keys that it is asked for
    held = house.path.with_name("its blocks")
    held.hardlink_to(house.path)
    assert any(held.read_bytes())
    (ring, *_), (store, *_) = house.rings, house.stores
    before = dict(await store.scan(SCOPE_KEYS, limit=100))
    await house.rotate()
    assert not any(held.read_bytes())
    for key, record in before.items():
        await store.commit([[Put(SCOPE_KEYS, key, record.value)]])
        with pytest.raises(SealBroken):
            await ring.scope_key(key[1:])


async def test_a_scope_key_from_before_opens_no_day_key_of_after(house: House) -> None:
    """So the old master key with today's disk, or today's with old pages, opens no content."""
    await house.keys()
    old = await house.rings[0].scope_key(SHOP)
    before = await house.stores[0].scan(DAY_KEYS, limit=100)
    await house.rotate()
    new = await house.rings[0].scope_key(SHOP)
    after = await house.stores[0].scan(DAY_KEYS, limit=100)
    assert [key for key, _ in before] == [key for key, _ in after]
    for (key, was), (_, now) in zip(before, after, strict=True):
        assert open_day_key(old, key, was.value) == open_day_key(new, key, now.value)
        assert was.expires_at_ms == now.expires_at_ms
        for wrong, value in ((old, now.value), (new, was.value)):
            with pytest.raises(SealBroken):
                open_day_key(wrong, key, value)


async def test_a_copy_from_before_does_not_open_with_the_key_of_after(house: House) -> None:
    await house.keys()
    copies = copy.deepcopy(house.stores)
    await house.rotate()
    new = FileKeyProvider(house.path)
    for store in copies:
        assert await wrapped_under(new, store) == 0
        with pytest.raises(MasterKeyFault):
            await Keyring.open(store, new, house.clock)


@pytest.mark.parametrize(
    "point",
    [
        *(f"sealing.rotate.scope=error@{passage}" for passage in range(1, 7)),
        "sealing.rotate.before_replace=error",
        "sealing.rotate.after_replace=error",
    ],
)
@pytest.mark.parametrize("restart", [True, False])
async def test_it_goes_on_from_every_point(house: House, point: str, restart: bool) -> None:
    keys = await house.keys()
    old = FileKeyProvider(house.path)
    failpoints.configure(point)
    try:
        with pytest.raises(InjectedFault):
            await house.rotate()
    finally:
        failpoints.configure("")
    assert await house.keys() == keys
    if restart:
        await house.start()
        assert await house.keys() == keys
    if staged(house.path).exists():
        await house.go_on()
    assert [await wrapped_under(old, store) for store in house.stores] == [0, 0]
    await house.start()
    assert await house.keys() == keys


async def test_keys_made_during_a_rotation_are_kept(house: House) -> None:
    make_key(staged(house.path), UNPROTECTED)
    following = FileKeyProvider(staged(house.path))
    await house.rings[0].turn(following)
    made = await house.rings[0].scope_key(b"new business num")
    day = await house.rings[0].day_key(b"new business num", NOW_MS)
    await house.go_on()
    await house.start()
    assert await house.rings[0].day_key(b"new business num", NOW_MS) == day
    assert made != await house.rings[0].scope_key(NAMES)


async def test_a_staged_file_that_cannot_be_opened_waits(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    keys = await house.keys()
    staged(house.path).write_bytes(b"no key")
    staged(house.path).chmod(0o600)
    pauses: list[float] = []

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        raise Enough

    rotation = MasterRotation(house.path, UNPROTECTED, house.rings, sleep=sleep)
    with pytest.raises(Enough):
        await rotation.run()
    assert pauses == [30.0]
    (record,) = caplog.records
    assert record.getMessage() == "master_key_rotation_waits"
    assert await house.keys() == keys


async def test_a_full_disk_puts_it_off(house: House) -> None:
    await house.keys()
    old = FileKeyProvider(house.path)
    make_key(staged(house.path), UNPROTECTED)
    house.stores[1].full = True

    class Enough(Exception):
        pass

    async def sleep(_: float) -> None:
        if not staged(house.path).exists():
            raise Enough
        assert FileKeyProvider(house.path).key_id == old.key_id
        house.stores[1].full = False

    with pytest.raises(Enough):
        await MasterRotation(house.path, UNPROTECTED, house.rings, sleep=sleep).run()
    assert [await wrapped_under(old, store) for store in house.stores] == [0, 0]
