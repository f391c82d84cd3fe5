"""Removing a business number: nothing of it stays, here and at the relay, after a crash, too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from letterlock.errors import UnknownRecipient
from letterlock.relay.v1 import keys_pb2
from letterlock.v1 import messaging_pb2 as api
from letterlockd import failpoints
from letterlockd.errors import Forbidden
from letterlockd.gateway import tables
from letterlockd.gateway.inbox_rows import INBOX, INBOX_TABLES
from letterlockd.records.v1.gateway_pb2 import NumberRecord
from letterlockd.sealing import keyring
from letterlockd.store.port import Put
from letterlockd.uplink import RelayUnavailable

from tests.harness.clock import until
from tests.harness.gateway import (
    NUMBER,
    Business,
    GatewayStore,
    World,
    gateway_store,
    message,
    outbox_empty,
)
from tests.harness.gateway import reading as reading_devices

USER, OTHER = "+4915112345678", "+4930123457"


@pytest.fixture(autouse=True)
def _no_failpoints_after() -> Iterator[None]:
    yield
    failpoints.configure("")


async def rows_with(store: GatewayStore, *names: bytes) -> list[str]:
    """The tables in which a key or a value names one of these."""
    found = []
    for table in (*tables.TABLES, *INBOX_TABLES, *keyring.TABLES):
        rows = await store.scan(table, limit=10_000)
        found += [table.name for key, row in rows if any(n in key or n in row.value for n in names)]
    return found


async def talk(world: World, store: GatewayStore, business: Business, other: Business) -> None:
    """A conversation of each of two numbers with one user, at rest; events of both are left
    unread. Tables that such a conversation does not need have a row of each number, too."""
    for account in (business.sender.account_id, other.sender.account_id):
        rows = [
            Put(table, account + b"x" * 32, b"x", 2**50 if table.expires else 0)
            for table in (tables.ASKED, tables.LAST_RESORT_USES, *INBOX_TABLES)
            if table != INBOX
        ]
        await store.commit([rows])
    async with reading_devices(await world.device(USER)) as (reader,):
        for sender in (business, other):
            (result,) = await sender.send(message("k", to=USER))
            await reader.device.send_text(sender.sender.phone_number, "hello")
            await sender.inbound(1)
            await sender.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
    await outbox_empty(business.gateway)


async def key_scope(store: GatewayStore, business: Business) -> bytes:
    row = await store.get(tables.NUMBERS, business.sender.account_id)
    assert row is not None
    return NumberRecord.FromString(row.value).key_scope


async def is_known_at_the_relay(world: World, business: Business) -> bool:
    target = keys_pb2.BundleTarget(phone_number=business.sender.phone_number)
    device = await world.device("+4915112345999")
    assert device._relay_calls is not None
    try:
        await device._relay_calls.fetch_bundles(target)
    except UnknownRecipient:
        return False
    return True


async def test_nothing_stays_of_a_number_and_all_of_its_neighbour(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business, other = await world.business(gateway), await world.business(gateway, OTHER)
        await talk(world, store, business, other)
        account, scope = business.sender.account_id, await key_scope(store, business)
        before = await rows_with(store, other.sender.account_id, await key_scope(store, other))
        await gateway.removal.remove_number(account, NUMBER)
        assert await rows_with(store, account, scope) == []
        after = await rows_with(store, other.sender.account_id, await key_scope(store, other))
        assert after == before
        with pytest.raises(Forbidden):
            await business.send(message("late", to=USER))
        assert not await is_known_at_the_relay(world, business)
        await gateway.removal.remove_number(account, NUMBER)  # again: changes nothing
        fresh = await world.business(gateway)
        assert fresh.sender.account_id != account
        assert fresh.identity_key != business.identity_key
        (result,) = await fresh.send(message("k", to=USER))
        assert result.HasField("accepted")
        assert not result.accepted.repeated


@pytest.mark.parametrize("at", ["deregistered", "keys_destroyed", "cleared"])
async def test_a_removal_goes_on_after_a_crash(world: World, at: str) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business, other = await world.business(gateway), await world.business(gateway, OTHER)
        await talk(world, store, business, other)
        scope = await key_scope(store, business)
        failpoints.configure(f"gateway.removal.{at}=error")
        with pytest.raises(failpoints.InjectedFault):
            await gateway.removal.remove_number(business.sender.account_id, NUMBER)
    failpoints.configure("")
    async with world.gateway(store) as gateway:
        await gateway.removal.remove_number(business.sender.account_id, NUMBER)
        assert await rows_with(store, business.sender.account_id, scope) == []


async def test_a_removal_does_not_wait_for_a_repair_that_it_overtook(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under repair is known to the relay no more, so nobody else would ever answer it."""
    store, first = gateway_store(), await world.device(USER)
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        account, relay = business.sender.account_id, gateway.uplink.calls
        await business.send(message("k1", to=USER))
        removing: list[asyncio.Task[None]] = []
        fetch = relay.fetch_bundles

        async def slow(targets: Sequence[keys_pb2.BundleTarget]) -> list[keys_pb2.BundleResult]:
            results = await fetch(targets)
            removing.append(asyncio.create_task(gateway.removal.remove_number(account, NUMBER)))
            await asyncio.sleep(0)  # it begins: from now on the number is none of ours
            return results

        monkeypatch.setattr(relay, "fetch_bundles", slow)
        await world.device(of=first)
        await business.send(message("k2", to=USER))
        await until(lambda: bool(removing))
        async with asyncio.timeout(10):
            await removing[0]
        assert await rows_with(store, account) == []


async def test_while_the_relay_is_away_a_removal_waits_but_nobody_sends(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
    async with world.gateway(store, away=True) as gateway:
        with pytest.raises(RelayUnavailable):
            await gateway.removal.remove_number(business.sender.account_id, NUMBER)
        business.gateway = gateway
        with pytest.raises(Forbidden):
            await business.send(message("late", to=USER))
