"""What is told when messages die (I4, I7), with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from letterlock.v1 import errors_pb2
from letterlock.v1 import messaging_pb2 as api
from letterlockd.gateway import tables
from letterlockd.gateway.expiry import KEPT
from letterlockd.gateway.inbox_rows import INBOX
from letterlockd.gateway.news import MIN_EVENT_LIFE_MS
from letterlockd.gateway.references import open_reference
from letterlockd.model.ids import MessageId
from letterlockd.sealing.keyring import Keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.sealing.seal import Cipher

from tests.harness.clock import FakeClock
from tests.harness.gateway import (
    Business,
    World,
    gateway_store,
    message,
    outbox_empty,
    reading,
    running_world,
)

USER = "+4915112345678"
MINUTE_MS = 60_000


@pytest.fixture
async def moved_world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path, FakeClock()) as running:
        yield running


async def advance(world: World, milliseconds: int) -> None:
    assert isinstance(world.clock, FakeClock)
    await world.clock.advance(milliseconds)


async def know_each_other(business: Business) -> None:
    """A first message, and nothing of it left in the outbox."""
    (result,) = await business.send(message("k1", to=USER))
    await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
    await outbox_empty(business.gateway)


async def test_a_message_that_never_left_expires_here(moved_world: World) -> None:
    world, store = moved_world, gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        async with reading(await world.device(USER)):
            await know_each_other(business)
    async with world.gateway(store, away=True) as gateway:
        business = await world.business(gateway)
        (result,) = await business.send(message("k2", to=USER, ttl_s=60))
        await advance(world, 2 * MINUTE_MS)
        await gateway.expiry.look()
        event = await business.status(result.accepted.message_id, api.MESSAGE_STATUS_EXPIRED)
        assert event.status.failure.hop == api.HOP_GATEWAY
        assert event.status.failure.reason == errors_pb2.ERROR_REASON_EXPIRED
        assert gateway.outbox.count == 0
        assert await store.count(tables.OUTBOX) == 0
        assert gateway.counters.expired == 1


async def test_what_expired_while_the_process_was_down_is_told_at_its_start(
    moved_world: World,
) -> None:
    world, store = moved_world, gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        async with reading(await world.device(USER)):
            await know_each_other(business)
    async with world.gateway(store, away=True) as gateway:
        business = await world.business(gateway)
        (result,) = await business.send(message("k2", to=USER, ttl_s=60))
    await advance(world, 2 * MINUTE_MS)
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_EXPIRED)
        assert await store.count(tables.OUTBOX) == 0


async def test_an_undelivered_message_is_told_before_its_record_goes(moved_world: World) -> None:
    world, store = moved_world, gateway_store()
    await world.device(USER)
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        (result,) = await business.send(message("k", to=USER))
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_SENT)
        await advance(world, business.sender.retention_ms)
        swept = await store.sweep(world.clock.now_ms(), limit=10_000, keep=KEPT)
        assert not swept.more
        await gateway.expiry.look()
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_EXPIRED)
        assert await store.count(tables.MESSAGES) == 0


async def test_after_its_retention_nothing_of_a_message_is_left(moved_world: World) -> None:
    world, store = moved_world, gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        (result,) = await business.send(message("k", to=USER))
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
        await reader.device.send_text(reader.business, "hello")
        await business.inbound(1)
        await outbox_empty(gateway)
        await advance(world, 31 * 86_400_000)
        await gateway.expiry.look()
        await store.sweep(world.clock.now_ms(), limit=10_000, keep=KEPT)
        left = {table.name: await store.count(table) for table in tables.TABLES if table.expires}
        assert set(left.values()) == {0}, left


async def test_key_and_tag_are_sealed_and_told_as_long_as_there_are_news(
    moved_world: World,
) -> None:
    world, store = moved_world, gateway_store()
    key, tag = "order of mrs okapi", b"row 4711 of the zebra file"
    async with world.gateway(store) as gateway:
        await world.device(USER)
        business = await world.business(gateway)
        wanted = message(key, to=USER, ttl_s=60)
        wanted.caller_tag = tag
        (result,) = await business.send(wanted)
        message_id = MessageId(bytes.fromhex(result.accepted.message_id))
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_SENT)
        for table in (tables.MESSAGES, tables.IDEMPOTENCY, tables.OUTBOX, INBOX):
            for row_key, row in await store.scan(table, limit=100):
                assert key.encode() not in row_key + row.value
                assert tag not in row.value
        await advance(world, business.sender.retention_ms - 1)  # its payload's day key is gone
        found = await gateway.outbound.message(
            business.sender, message_id=message_id, idempotency_key=None
        )
        assert (found.idempotency_key, found.caller_tag) == (key, tag)
        await advance(world, 1)
        await gateway.expiry.look()
        event = await business.status(message_id.hex(), api.MESSAGE_STATUS_EXPIRED)
        await advance(world, MIN_EVENT_LIFE_MS - 1)
        provider = FileKeyProvider(world.folder / "gateway.key")
        ring = await Keyring.open(store, provider, world.clock)
        account, status = business.sender.account_id, event.status
        day_key = await ring.day_key_by_id(account, status.reference_key_id)
        opened = open_reference(Cipher(day_key.key), message_id, status.sealed_reference)
        assert opened == (key, tag)


async def test_a_key_can_be_used_anew_after_the_retention(moved_world: World) -> None:
    world = moved_world
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        (first,) = await business.send(message("k", to=USER))
        await reader.texts(1)
        await advance(world, business.sender.retention_ms + 1)
        (second,) = await business.send(message("k", to=USER, text="again"))
        assert second.HasField("accepted"), second
        assert second.accepted.message_id != first.accepted.message_id
        assert not second.accepted.repeated
        assert await reader.texts(2) == ["hello", "again"]
