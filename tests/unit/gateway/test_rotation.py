"""The turn-over of signed and last-resort pre-keys: when, what stays usable, and what heals."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from letterlock.device.device import Device
from letterlock.relay.v1 import keys_pb2
from letterlockd import failpoints
from letterlockd.gateway import prekeys
from letterlockd.gateway.room import Gateway
from letterlockd.gateway.rotation import Schedule
from letterlockd.gateway.tables import CONVERSATIONS, NUMBERS, PRE_KEYS, SEEN
from letterlockd.model.ids import AccountId, new_account_id
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.records.v1.gateway_pb2 import NumberRecord
from letterlockd.sealing.keyring import DAY_MS

from tests.harness.clock import FakeClock, settle, until
from tests.harness.gateway import Business, GatewayStore, World, gateway_store, running_world
from tests.unit.gateway.test_incoming import Tap, forget

USER = "+4915112345678"
WEEK, GRACE = Schedule(7 * DAY_MS, 30 * DAY_MS).rotation_ms, 30 * DAY_MS


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(tmp_path: Path, clock: FakeClock) -> AsyncIterator[World]:
    async with running_world(tmp_path, clock) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_failpoints_after() -> Iterator[None]:
    yield
    failpoints.configure("")


async def published(world: World, business: Business) -> tuple[int, int]:
    """Ids of the signed and the last-resort key that the directory has."""
    account = business.sender.account_id
    bundle = await _bundle(world, account)
    return bundle.signed_pre_key.key_id, bundle.kyber_pre_key.key_id


async def _bundle(world: World, account: AccountId) -> keys_pb2.DeviceBundle:
    """What a newcomer gets once the one-time keys are used up."""
    device = await world.device(f"+4915{secrets.randbelow(10**8):08d}")
    while True:
        bundles = await _fetch(device, account)
        if not bundles.devices[0].HasField("one_time_pre_key"):
            return bundles.devices[0]


async def _fetch(device: Device, account: AccountId) -> keys_pb2.AccountBundles:
    assert device._relay_calls is not None
    return await device._relay_calls.fetch_bundles(keys_pb2.BundleTarget(account_id=account))


async def stored(
    store: GatewayStore, business: Business
) -> tuple[NumberRecord, set[int], set[int]]:
    """The number's record, and the ids of its signed and last-resort keys on disk."""
    row = await store.get(NUMBERS, business.sender.account_id)
    assert row is not None
    record = NumberRecord.FromString(row.value)

    async def ids(kind: int) -> set[int]:
        rows = await store.scan(PRE_KEYS, prefix=record.key_scope + bytes((kind,)), limit=1_000)
        return {int.from_bytes(key[-4:], "big") for key, _ in rows}

    signed = await ids(jobs.PRE_KEY_KIND_SIGNED)
    return record, signed, await ids(jobs.PRE_KEY_KIND_KYBER_LAST_RESORT)


@pytest.fixture
def _no_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """No one-time keys: bundles show the last-resort key, and days pass quickly."""

    async def no_refill(*_: object) -> None:
        return

    monkeypatch.setattr(prekeys.PreKeyStock, "refill", no_refill)


@pytest.mark.usefixtures("_no_stock")
async def test_keys_turn_over_weekly_and_die_a_month_after_they_were_replaced(
    world: World, clock: FakeClock
) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        last, since = (await published(world, business))[0], clock.now_ms()
        replaced: dict[int, int] = {}
        told: list[MutableMapping[str, Any]] = []
        for _ in range(80):
            with structlog.testing.capture_logs() as logs:
                await gateway.rotation.look_at_all()
            told += [entry for entry in logs if entry["event"] == "pre_keys_rotated"]
            signed_id, last_resort_id = await published(world, business)
            record, signed, last_resort = await stored(store, business)
            if signed_id != last:
                replaced[last] = clock.now_ms()
                assert clock.now_ms() - since <= WEEK
                last, since = signed_id, clock.now_ms()
            alive = {k for k, at in replaced.items() if clock.now_ms() - at < GRACE} | {last}
            assert signed == alive == {pair.signed_key_id for pair in record.reusable_pre_keys}
            assert last_resort == {pair.last_resort_key_id for pair in record.reusable_pre_keys}
            assert last_resort_id == record.reusable_pre_keys[-1].last_resort_key_id
            assert not record.upload
            await clock.advance(DAY_MS)
        assert 80 // 7 <= len(replaced) == gateway.counters.key_rotations
        assert gateway.counters.keys_destroyed == len(replaced) + 1 - len(signed)
    assert sum(entry["replaced"] for entry in told) == len(replaced)


def test_numbers_turn_over_at_times_of_their_own() -> None:
    schedule, now_ms = Schedule(WEEK, GRACE), 1_800_000_000_000
    records = {new_account_id(secrets.token_bytes): NumberRecord() for _ in range(2_000)}
    hours = [0] * (7 * 24 + 1)
    for account, record in records.items():
        schedule.mend(record, account, now_ms)
        due = next(
            hour
            for hour in range(len(hours))
            if schedule.is_due(record, account, now_ms + hour * DAY_MS // 24)
        )
        hours[due] += 1
    assert max(hours) < len(records) / 40


@pytest.mark.usefixtures("_no_stock")
async def test_a_clock_that_jumps_makes_neither_a_flood_nor_a_gap(
    world: World, clock: FakeClock
) -> None:
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        await gateway.rotation.look_at_all()
        for jump in (365 * DAY_MS, -365 * DAY_MS, -40 * DAY_MS, 400 * DAY_MS):
            clock.set_wall(clock.now_ms() + jump)
            before = await published(world, business)
            rotations = gateway.counters.key_rotations
            for _ in range(5):
                await gateway.rotation.look_at_all()
            assert gateway.counters.key_rotations - rotations <= 1
            clock.set_wall(clock.now_ms() + WEEK)
            await gateway.rotation.look_at_all()
            assert await published(world, business) != before


async def first_contact_with(device: Device, old: keys_pb2.AccountBundles, text: str) -> None:
    """Send with a bundle that was fetched earlier."""

    async def fetched(*_: object) -> keys_pb2.AccountBundles:
        return old

    assert device._relay_calls is not None
    device._relay_calls.fetch_bundles = fetched  # type: ignore[method-assign]
    await device.send_text(old.account_id, text)


async def until_replaced(gateway: Gateway, clock: FakeClock) -> None:
    before = gateway.counters.key_rotations
    while gateway.counters.key_rotations == before:
        await clock.advance(DAY_MS)
        await gateway.rotation.look_at_all()


async def test_a_bundle_from_before_opens_within_the_grace_and_is_told_after_it(
    world: World, clock: FakeClock
) -> None:
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        early, late = await world.device(USER), await world.device("+4915112345679")
        bundles = [await _fetch(device, business.sender.account_id) for device in (early, late)]
        await until_replaced(gateway, clock)
        await clock.advance(29 * DAY_MS)
        await gateway.rotation.look_at_all()
        await first_contact_with(early, bundles[0], "still opens")
        await business.inbound(1)
        await clock.advance(DAY_MS)
        await gateway.rotation.look_at_all()
        await first_contact_with(late, bundles[1], "too late")
        events = await business.events(lambda seen: any(e.HasField("undecryptable") for e in seen))
        assert sum(event.HasField("inbound") for event in events) == 1
        assert gateway.counters.undecryptable == 1


@pytest.mark.usefixtures("_no_stock")
async def test_a_replay_is_known_as_long_as_a_replaced_last_resort_key_lives(
    world: World, clock: FakeClock
) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        tap = Tap(gateway)
        await (await world.device(USER)).send_text(business.sender.phone_number, "once")
        await business.inbound(1)
        await until_replaced(gateway, clock)
        await clock.advance(29 * DAY_MS)
        await gateway.rotation.look_at_all()
        await forget(store, CONVERSATIONS)
        while (await store.sweep(clock.now_ms(), limit=1_000)).more:
            pass
        assert await store.count(SEEN) == 0
        tap.again()
        await until(lambda: gateway.counters.duplicates == 1)
        await gateway.lanes.idle()
        assert len((await gateway.inbox.read(business.sender.account_id, 0, limit=9)).items) <= 1


@pytest.mark.parametrize("at", ["before_commit", "after_commit", "after_upload"])
@pytest.mark.usefixtures("_no_stock")
async def test_a_crash_in_the_middle_heals(world: World, clock: FakeClock, at: str) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        await gateway.rotation.look_at_all()
        _, before, _ = await stored(store, business)
        clock.set_wall(clock.now_ms() + WEEK)
        failpoints.configure(f"gateway.rotation.{at}=error")
        with pytest.raises(failpoints.InjectedFault):
            await gateway.rotation.look_at_all()
    failpoints.configure("")
    # What the directory has now can be opened, whichever it is.
    _, signed, last_resort = await stored(store, business)
    public = await published(world, business)
    assert public[0] in signed
    assert public[1] in last_resort
    async with world.gateway(store) as gateway:
        await gateway.rotation.look_at_all()
        record, signed, _ = await stored(store, business)
        assert (await published(world, business))[0] == record.reusable_pre_keys[-1].signed_key_id
        assert not record.upload
        assert signed == before | {max(before) + 1}


@pytest.mark.usefixtures("_no_stock")
async def test_while_the_relay_is_away_one_pair_waits_and_nothing_dies(
    world: World, clock: FakeClock
) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        await gateway.rotation.look_at_all()
    async with world.gateway(store, away=True) as gateway:
        for _ in range(10):
            clock.set_wall(clock.now_ms() + WEEK)
            await gateway.rotation.look_at_all()
        record, signed, _ = await stored(store, business)
        assert (len(signed), gateway.counters.key_rotations) == (2, 0)
        assert record.upload
    async with world.gateway(store) as gateway:
        await gateway.rotation.look_at_all()
        assert (await published(world, business))[0] == max(signed)


async def test_a_turn_over_beside_a_refill_gives_no_id_twice(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        account = business.sender.account_id
        while account not in gateway.pre_keys._stocks:  # the first stock is on its way
            await settle(1)
        await gateway.rotation.look_at_all()
        clock.set_wall(clock.now_ms() + WEEK)
        monkeypatch.setattr(prekeys, "LOW_STOCK", prekeys.FULL_STOCK + 1)
        monkeypatch.setattr(prekeys, "FULL_STOCK", prekeys.FULL_STOCK + 10)
        await asyncio.gather(gateway.pre_keys.refill(account), gateway.rotation.look_at_all())
        await gateway.rotation.look_at_all()
        record, _, last_resort = await stored(store, business)
        kind = bytes((jobs.PRE_KEY_KIND_KYBER_ONE_TIME,))
        rows = await store.scan(PRE_KEYS, prefix=record.key_scope + kind, limit=1_000)
        one_time = {int.from_bytes(key[-4:], "big") for key, _ in rows}
        # Fewer would be ids given twice; more, that the stock was being counted anyway.
        assert len(one_time) >= prekeys.FULL_STOCK
        assert len(last_resort) == 2
        assert not one_time & last_resort
        assert max(one_time | last_resort) < record.next_kyber_pre_key_id
