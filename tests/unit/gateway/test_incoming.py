"""What users send that is not as it should be (I9), and the keys that it uses up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from letterlock.relay.v1 import mailbox_pb2
from letterlockd.gateway import prekeys, tables
from letterlockd.gateway.room import Gateway
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.inbox_pb2 import StoredEvent
from letterlockd.store.port import Delete

from tests.harness.clock import until
from tests.harness.gateway import GatewayStore, World, gateway_store, message, reading
from tests.harness.relay import submission

USER = "+4915112345678"


class Tap:
    """Keeps every item that the relay delivers, to deliver it again."""

    def __init__(self, gateway: Gateway) -> None:
        self.items: list[tuple[mailbox_pb2.Item, int]] = []
        self._inbound = gateway.inbound
        self._delivered = gateway.inbound.delivered
        gateway.inbound.delivered = self.delivered  # type: ignore[method-assign]

    def delivered(self, items: Sequence[mailbox_pb2.Item], epoch: int) -> None:
        self.items += [(item, epoch) for item in items if item.HasField("envelope")]
        self._delivered(items, epoch)

    def again(self) -> None:
        for item, epoch in list(self.items):
            self._delivered([item], epoch)


def undecryptable(events: Sequence[StoredEvent]) -> list[StoredEvent]:
    return [event for event in events if event.HasField("undecryptable")]


@pytest.mark.parametrize("kind", [2, 3])
async def test_poison_is_told_once_and_the_conversation_goes_on(world: World, kind: int) -> None:
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        client = world.relay.client
        peer = await client.register()
        stream = await client.connect(peer)
        poison = submission(peer, now_ms=world.clock.now_ms(), body=b"poison")
        poison.recipient_account_id = business.sender.account_id
        poison.envelopes[0].device_id = 1
        poison.envelopes[0].registration_id = await registration_id(gateway, business.sender)
        poison.envelopes[0].type = kind
        await stream.submitted(poison)
        events = await business.events(lambda seen: bool(undecryptable(seen)))
        assert [event.undecryptable.device_id for event in undecryptable(events)] == [1]
        assert gateway.counters.undecryptable == 1
        async with reading(await world.device(USER)) as (reader,):
            await reader.device.send_text(business.sender.phone_number, "fine")
            await business.inbound(1)


async def registration_id(gateway: Gateway, sender: Any) -> int:
    from letterlockd.records.v1.gateway_pb2 import NumberRecord

    store = gateway.outbox._store
    row = await store.get(tables.NUMBERS, sender.account_id)
    assert row is not None
    return NumberRecord.FromString(row.value).registration_id


async def test_the_same_item_again_changes_nothing(world: World) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        tap = Tap(gateway)
        business = await world.business(gateway)
        await reader.device.send_text(business.sender.phone_number, "once")
        await business.inbound(1)
        tap.again()
        await until(lambda: gateway.counters.duplicates == 1)
        await reader.device.send_text(business.sender.phone_number, "twice")
        events = await business.inbound(2)
        assert len({event.inbound.message_id for event in events}) == 2


async def test_an_item_that_is_in_hand_already_is_worked_once(world: World) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        tap = Tap(gateway)
        delivered = tap.delivered

        def twice(items: Sequence[mailbox_pb2.Item], epoch: int) -> None:
            delivered(items, epoch)
            delivered(items, epoch)

        gateway.inbound.delivered = twice  # type: ignore[method-assign]
        for text in ("a", "b"):
            await reader.device.send_text(business.sender.phone_number, text)
        events = await business.inbound(2)
        await until(lambda: gateway.counters.duplicates == 2)
        assert len(events) == 2
        assert gateway.counters.undecryptable == 0


async def forget(store: GatewayStore, *forgotten: Any) -> None:
    for table in forgotten:
        rows = await store.scan(table, limit=100)
        await store.commit([[Delete(table, key) for key, _ in rows]])


async def test_a_replay_with_the_last_resort_key_is_not_told_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_refill(stock: object, account: AccountId) -> None:
        return None

    monkeypatch.setattr(prekeys.PreKeyStock, "refill", no_refill)
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        tap = Tap(gateway)
        business = await world.business(gateway)
        await reader.device.send_text(business.sender.phone_number, "once")
        await business.inbound(1)
        assert await store.count(tables.LAST_RESORT_USES) == 1
        await forget(store, tables.CONVERSATIONS, tables.SEEN)
        tap.again()
        await until(lambda: gateway.counters.duplicates == 1)
        await gateway.lanes.idle()
        await business.send(message("k", to=USER))
        assert len(await business.inbound(1)) == 1
        assert await store.count(tables.SEEN) == 1


async def test_used_one_time_keys_are_deleted_and_made_again(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        account = business.sender.account_id
        await until(lambda: gateway.counters.key_uploads == 1)
        stored = await store.count(tables.PRE_KEYS)
        assert stored == 2 + 2 * prekeys.FULL_STOCK
        await reader.device.send_text(business.sender.phone_number, "hello")
        await business.inbound(1)
        assert await store.count(tables.PRE_KEYS) == stored - 2
        gateway.pre_keys.used(account, 0, prekeys.FULL_STOCK)
        count = await gateway.uplink.calls.pre_key_count(account)
        assert count.one_time_pre_keys == count.one_time_kyber_pre_keys == prekeys.FULL_STOCK - 1


async def test_a_low_stock_is_filled_up_with_new_ids(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        account = business.sender.account_id
        await until(lambda: gateway.counters.key_uploads == 1)
        monkeypatch.setattr(prekeys, "LOW_STOCK", prekeys.FULL_STOCK + 1)
        monkeypatch.setattr(prekeys, "FULL_STOCK", prekeys.FULL_STOCK + 10)
        await gateway.pre_keys.refill(account)
        rows = await store.scan(tables.PRE_KEYS, limit=1_000)
        assert len({key for key, _ in rows}) == len(rows) == 2 + 2 * 110
        count = await gateway.uplink.calls.pre_key_count(account)
        assert count.one_time_pre_keys == count.one_time_kyber_pre_keys == 110


async def test_a_number_that_nobody_answers_for_does_not_hold_up_the_mailbox(
    world: World,
) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        other = await world.business(gateway, "+4930123457")
        del world.senders[other.sender.account_id]
        await reader.device.send_text(other.sender.phone_number, "nobody")
        await reader.device.send_text(business.sender.phone_number, "somebody")
        await business.inbound(1)
        assert gateway.counters.unknown_accounts == 1


async def test_items_without_sound_ids_are_dropped(world: World) -> None:
    async with world.gateway() as gateway:
        await world.business(gateway)
        items = [
            mailbox_pb2.Item(item_id=1, envelope=mailbox_pb2.Envelope(message_id=b"short")),
            mailbox_pb2.Item(item_id=2),
            mailbox_pb2.Item(
                item_id=3,
                receipts=mailbox_pb2.Receipts(
                    receipts=[
                        mailbox_pb2.Receipt(message_id=b"short"),
                        mailbox_pb2.Receipt(message_id=b"m" * 16, kind=9),  # type: ignore[arg-type]
                    ]
                ),
            ),
        ]
        gateway.inbound.delivered(items, 1)
        await until(lambda: gateway.counters.malformed_items == 4)
