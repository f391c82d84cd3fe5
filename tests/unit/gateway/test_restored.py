"""A gateway on a store that went back (I2): what it may still send, and under which keys."""

from __future__ import annotations

import copy

import pytest
from letterlock.v1 import messaging_pb2 as api
from letterlockd.gateway.prekeys import FULL_STOCK
from letterlockd.gateway.restored import DOUBTFUL_IDS
from letterlockd.gateway.tables import NUMBERS, OUTBOX
from letterlockd.records.v1.gateway_pb2 import NumberRecord, OutboxRecord
from letterlockd.store.history import History

from tests.harness.gateway import GatewayStore, World, gateway_store, message, outbox_empty, reading

USER = "+4915112345678"
DELIVERED = api.MESSAGE_STATUS_DELIVERED


async def restored(store: GatewayStore) -> GatewayStore:
    await (await History.open(store, lambda: 0)).went_back()
    return store


async def say(world: World, store: GatewayStore, *texts: str) -> list[str]:
    """Send and wait until all is delivered; the message ids."""
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        results = [await business.send(message(text, to=USER, text=text)) for text in texts]
        ids = [result.accepted.message_id for (result,) in results]
        for message_id in ids:
            await business.status(message_id, DELIVERED)
        await outbox_empty(gateway)
    return ids


async def say_into_the_outbox(world: World, store: GatewayStore, text: str) -> str:
    """Accepted and encrypted while the relay is away."""
    async with world.gateway(store, away=True) as gateway:
        (result,) = await (await world.business(gateway)).send(message(text, to=USER, text=text))
    assert await store.count(OUTBOX) == 1
    return result.accepted.message_id


@pytest.fixture
async def store(world: World) -> GatewayStore:
    """A number that is registered and whose keys are published."""
    store = gateway_store()
    async with world.gateway(store) as gateway:
        await world.business(gateway)
    return store


async def test_what_was_in_the_outbox_comes_once_and_under_new_keys(
    world: World, store: GatewayStore
) -> None:
    """The copy has a message that the original has sent since, and other messages after it."""
    async with reading(await world.device(USER)) as (reader,):
        await say(world, store, "first")
        waiting = await say_into_the_outbox(world, store, "waits")
        kept = copy.deepcopy(store)
        await say(world, store, "since then", "and then")
        assert await reader.texts(4) == ["first", "waits", "since then", "and then"]
        async with world.gateway(await restored(kept)) as gateway:
            business = await world.business(gateway)
            await business.events(
                lambda seen: any(event.status.message_id.hex() == waiting for event in seen)
            )
            (result,) = await business.send(message("new", to=USER, text="new"))
            await business.status(result.accepted.message_id, DELIVERED)
        assert await reader.texts(5) == ["first", "waits", "since then", "and then", "new"]
        assert reader.others == []


async def test_what_was_encrypted_before_it_was_noticed_is_encrypted_again(
    world: World, store: GatewayStore
) -> None:
    """A copied-back store accepts messages before its relay can tell: their keys are used ones."""
    async with reading(await world.device(USER)) as (reader,):
        await say(world, store, "first")
        kept = copy.deepcopy(store)
        await say(world, store, "under this key")
        await say_into_the_outbox(world, kept, "under this key, too")
        ((_, before),) = await kept.scan(OUTBOX, limit=10)
        await restored(kept)
        async with world.gateway(kept) as gateway:
            business = await world.business(gateway)
            record = OutboxRecord.FromString(before.value)
            await business.status(record.message_id.hex(), DELIVERED)
        assert await reader.texts(3) == ["first", "under this key", "under this key, too"]
        assert reader.others == []


async def test_users_go_on_writing_in_the_sessions_that_they_have(
    world: World, store: GatewayStore
) -> None:
    async with reading(await world.device(USER)) as (reader,):
        await say(world, store, "first")
        kept = copy.deepcopy(store)
        await say(world, store, "since then")
        await reader.texts(2)
        async with world.gateway(await restored(kept)) as gateway:
            business = await world.business(gateway)
            await reader.device.send_text(reader.business, "in the old session")
            assert len(await business.inbound(1)) == 1
            assert gateway.counters.undecryptable == 0
            await business.send(message("new", to=USER, text="new"))
            assert await reader.texts(3) == ["first", "since then", "new"]
            await reader.device.send_text(reader.business, "in the new one")
            assert len(await business.inbound(2)) == 2
            assert gateway.counters.undecryptable == 0


async def test_pre_keys_in_doubt_are_withdrawn_and_their_ids_skipped(
    world: World, store: GatewayStore
) -> None:
    ((account, before), *_) = [
        row for row in await store.scan(NUMBERS, limit=10) if len(row[0]) == 16
    ]
    was = NumberRecord.FromString(before.value)
    kept = await restored(copy.deepcopy(store))
    async with world.gateway(kept) as gateway:
        stocked = False
        while not stocked:
            row = await kept.get(NUMBERS, account)
            assert row is not None
            now = NumberRecord.FromString(row.value)
            count = await gateway.uplink.calls.pre_key_count(account)
            published = not now.keys_in_doubt and not now.upload
            stocked = published and count.one_time_pre_keys == FULL_STOCK
    assert now.next_pre_key_id >= was.next_pre_key_id + DOUBTFUL_IDS + FULL_STOCK
    assert now.next_kyber_pre_key_id > was.next_kyber_pre_key_id + DOUBTFUL_IDS
    assert now.reusable_pre_keys[-1].signed_key_id > DOUBTFUL_IDS
    assert (await History.open(kept, lambda: 0)).is_settled
