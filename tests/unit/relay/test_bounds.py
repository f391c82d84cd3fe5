"""Bounds of the relay: full mailboxes, rates, a full disk, a lost store."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from letterlock.relay.v1 import mailbox_pb2
from letterlock.v1 import errors_pb2
from letterlockd.relay import journal
from letterlockd.relay.settings import Rate, RelaySettings
from letterlockd.relay.tables import MAILBOXES
from letterlockd.store.port import StoreUnavailable

from tests.harness.clock import FakeClock, settle
from tests.harness.relay import GATEWAY, Running, memory_store, running_relay, submission


async def test_a_full_mailbox_refuses_until_something_is_taken(
    tmp_path: Path, clock: FakeClock
) -> None:
    settings = RelaySettings(device_mailbox_items=3)
    store = memory_store()
    async with running_relay(tmp_path, store, clock, settings=settings) as running:
        client = running.client
        user, business = await client.register(), await client.business()
        gateway = await client.connect(GATEWAY)
        sent = [
            submission(user, now_ms=clock.now_ms(), sender=business.account_id) for _ in range(4)
        ]
        results = await gateway.submitted(*sent)
        (refused,) = [result.refused for result in results if result.HasField("refused")]
        assert refused.reason == errors_pb2.ERROR_REASON_MAILBOX_FULL
        assert refused.retry_after.seconds == 300
        device = await client.connect(user)
        await device.ack((await device.items(3))[:1])
        await gateway.items(1)  # the receipt: the acknowledgement is durable
        (result,) = await gateway.submitted(sent[3])
        assert not result.HasField("refused")
        counters = running.relay.counters
        assert (counters.submissions, counters.deliveries, counters.mailbox_full) == (4, 1, 1)


async def test_a_mailbox_is_counted_after_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    store, settings = memory_store(), RelaySettings(device_mailbox_items=1)
    async with running_relay(tmp_path, store, clock, settings=settings) as running:
        user, business = await running.client.register(), await running.client.business()
        gateway = await running.client.connect(GATEWAY)
        await gateway.submitted(submission(user, now_ms=clock.now_ms(), sender=business.account_id))
    async with running_relay(tmp_path, store, clock, settings=settings) as running:
        gateway = await running.client.connect(GATEWAY)
        (result,) = await gateway.submitted(
            submission(user, now_ms=clock.now_ms(), sender=business.account_id)
        )
        assert result.refused.reason == errors_pb2.ERROR_REASON_MAILBOX_FULL


async def test_a_device_that_submits_too_fast_is_told_when_to_go_on(
    tmp_path: Path, clock: FakeClock
) -> None:
    settings = RelaySettings(submissions_per_device=Rate(2, 0.5))
    async with running_relay(tmp_path, memory_store(), clock, settings=settings) as running:
        client = running.client
        user, business = await client.register(), await client.business()
        device = await client.connect(user)
        sent = [submission(business, now_ms=clock.now_ms()) for _ in range(3)]
        results = await device.submitted(*sent)
        (refused,) = [result.refused for result in results if result.HasField("refused")]
        assert refused.reason == errors_pb2.ERROR_REASON_RATE_LIMITED
        assert refused.retry_after.ToMilliseconds() == 2_000


async def test_a_quiet_relay_does_not_gather(tmp_path: Path, clock: FakeClock) -> None:
    an_hour = RelaySettings(batch_seconds=3_600)
    async with running_relay(tmp_path, memory_store(), clock, settings=an_hour) as running:
        user, business = await running.client.register(), await running.client.business()
        gateway = await running.client.connect(GATEWAY)
        for _ in range(3):
            (result,) = await gateway.submitted(
                submission(user, now_ms=clock.now_ms(), sender=business.account_id)
            )
            assert not result.HasField("refused")


async def test_acknowledgements_are_committed_with_the_next_submission(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_RIDE_SECONDS", 3_600)
    async with running_relay(tmp_path, memory_store(), clock) as running:
        user, business = await running.client.register(), await running.client.business()
        gateway, device = await running.client.connect(GATEWAY), await running.client.connect(user)

        def next_one() -> mailbox_pb2.Submission:
            return submission(user, now_ms=clock.now_ms(), sender=business.account_id)

        await gateway.submitted(next_one())
        await device.ack(await device.items(1))
        await gateway.submitted(next_one())
        (receipts,) = await gateway.items(1)
        assert len(receipts.receipts.receipts) == 1
        await device.ack(await device.items(1))
        await settle()
    # Closing waits for nobody to ride with.


async def test_a_full_disk_refuses_submissions_and_keeps_receipts_for_later(
    tmp_path: Path, clock: FakeClock
) -> None:
    store = memory_store()
    async with running_relay(tmp_path, store, clock) as running:
        client = running.client
        user, business = await client.register(), await client.business()
        gateway, device = await client.connect(GATEWAY), await client.connect(user)
        now_ms = clock.now_ms()
        await gateway.submitted(
            submission(user, now_ms=now_ms, sender=business.account_id),
            submission(user, now_ms=now_ms, sender=business.account_id, receipt=False),
        )
        owing, free = await device.items(2)
        store.full = True
        (result,) = await gateway.submitted(
            submission(user, now_ms=now_ms, sender=business.account_id)
        )
        assert result.refused.reason == errors_pb2.ERROR_REASON_STORAGE_FULL
        await device.ack([free])
        await device.ack([owing])
        store.full = False
        (receipts,) = await gateway.items(1)
        assert receipts.receipts.receipts[0].message_id == owing.envelope.message_id
        assert await store.count(MAILBOXES) == 1


async def test_a_lost_store_ends_the_streams_and_the_relay(
    tmp_path: Path, clock: FakeClock
) -> None:
    store = memory_store()
    async with running_relay(tmp_path, store, clock) as running:
        client = running.client
        user, business = await client.register(), await client.business()
        gateway = await client.connect(GATEWAY)
        store.lose()
        await gateway.submit(submission(user, now_ms=clock.now_ms(), sender=business.account_id))
        assert (await gateway.fault()).code() == grpc.StatusCode.UNAVAILABLE


async def test_the_relay_tells_its_process_that_it_failed(running: Running) -> None:
    running.store.lose()  # type: ignore[attr-defined]
    running.relay.sweeper.wake()
    assert isinstance(await running.relay.failed(), StoreUnavailable)
