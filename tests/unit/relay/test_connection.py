"""One stream's order: what was read from the store does not come again when its commit is told."""

from __future__ import annotations

from letterlock.relay.v1.mailbox_pb2 import ConnectResponse, Receipt
from letterlockd.relay.connection import Connection, FrameLimits, Outgoing
from letterlockd.relay.items import receipts_item, write_row
from letterlockd.relay.tables import MAILBOXES, item_key
from letterlockd.store.port import Put

from tests.harness.clock import FakeClock
from tests.harness.relay import memory_store

MAILBOX = 3


def outgoing(item_id: int) -> Outgoing:
    delivery = receipts_item(item_id, [Receipt(message_id=bytes(16)).SerializeToString()])
    return Outgoing(MAILBOX, item_id, delivery, len(delivery), None)


async def test_an_item_read_from_the_store_is_not_delivered_again_live(clock: FakeClock) -> None:
    store = memory_store()
    connection = Connection(MAILBOX, 1, 10, FrameLimits(10_000, 10), store, clock)
    row = write_row(outgoing(5).delivery, None, b"")
    put = Put(MAILBOXES, item_key(MAILBOX, 5), row, clock.now_ms() + 1_000)
    await store.commit([[put]])
    frames = connection.frames()
    kinds = [ConnectResponse.FromString(await anext(frames)).WhichOneof("frame") for _ in range(3)]
    assert kinds == ["opened", "deliveries", "queue_empty"]
    connection.offer(outgoing(5))  # the commit's answer comes after the stream has read the row
    connection.offer(outgoing(6))
    live = ConnectResponse.FromString(await anext(frames)).deliveries
    assert [item.item_id for item in live.items] == [6]


async def test_what_is_past_its_time_is_not_delivered(clock: FakeClock) -> None:
    store = memory_store()
    connection = Connection(MAILBOX, 1, 10, FrameLimits(10_000, 10), store, clock)
    row = write_row(outgoing(5).delivery, None, b"")
    await store.commit([[Put(MAILBOXES, item_key(MAILBOX, 5), row, clock.now_ms())]])
    frames = connection.frames()
    await anext(frames)
    assert ConnectResponse.FromString(await anext(frames)).WhichOneof("frame") == "queue_empty"
