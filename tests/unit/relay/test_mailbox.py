"""Mailbox.Connect: submit, deliver, acknowledge, receipts, and the ends of a stream."""

from __future__ import annotations

import os

import grpc
import pytest
from letterlock.relay.v1 import accounts_pb2, mailbox_pb2
from letterlock.relay.v1.mailbox_pb2 import Receipt
from letterlock.v1 import errors_pb2
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.tables import MAILBOXES, SUBMITTED

from tests.harness.clock import FakeClock
from tests.harness.relay import GATEWAY, Running, as_, submission


async def test_a_message_goes_from_gateway_to_device_and_its_receipt_back(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway, device = await client.connect(GATEWAY), await client.connect(user)
    sent = submission(user, now_ms=clock.now_ms(), sender=business.account_id)

    (result,) = await gateway.submitted(sent)
    assert not result.HasField("refused")
    assert (result.message_id, result.sender_account_id) == (sent.message_id, business.account_id)

    (item,) = await device.items(1)
    envelope = item.envelope
    assert envelope.message_id == sent.message_id
    assert envelope.sender_account_id == business.account_id
    assert envelope.recipient_account_id == user.account_id
    assert (envelope.type, envelope.body) == (2, b"ciphertext")
    assert (envelope.sender_device_id, envelope.recipient_device_id) == (1, 1)
    assert envelope.expire_time == sent.expire_time
    assert envelope.sender_phone_number == ""

    await device.ack([item])
    (receipts,) = await gateway.items(1)
    (receipt,) = receipts.receipts.receipts
    assert receipt.kind == Receipt.KIND_DELIVERED
    assert (receipt.message_id, receipt.device_id) == (sent.message_id, 1)
    assert receipt.recipient_account_id == user.account_id
    assert await running.store.count(MAILBOXES) == 1  # the receipt alone


async def test_a_user_writes_to_a_business_and_the_gateway_learns_the_number(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway, device = await client.connect(GATEWAY), await client.connect(user)
    await device.submitted(submission(business, now_ms=clock.now_ms()))
    (item,) = await gateway.items(1)
    assert item.envelope.sender_phone_number == user.number
    assert item.envelope.recipient_account_id == business.account_id


async def test_the_number_of_a_message_that_waits_is_told_and_not_kept_with_it(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    device = await client.connect(user)
    await device.submitted(submission(business, now_ms=clock.now_ms()))
    rows = await running.store.scan(MAILBOXES, prefix=b"", limit=10)
    assert user.number.encode() not in b"".join(record.value for _, record in rows)
    (item,) = await (await client.connect(GATEWAY)).items(1)
    assert item.envelope.sender_phone_number == user.number
    assert item.envelope.body == b"ciphertext"


async def test_what_waited_is_delivered_in_order_and_then_the_queue_is_empty(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway = await client.connect(GATEWAY)
    sent = [
        submission(user, now_ms=clock.now_ms(), sender=business.account_id, body=bytes([n]))
        for n in range(1, 101)
    ]
    await gateway.submitted(*sent)
    device = await client.connect(user)
    found: list[mailbox_pb2.Item] = []
    while len(found) < 100:
        found += (await device.expect("deliveries")).items
    await device.expect("queue_empty")
    assert [item.envelope.body[0] for item in found] == list(range(1, 101))
    ids = [item.item_id for item in found]
    assert ids == sorted(set(ids))


async def test_the_window_holds_back_until_acknowledgements_are_durable(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway, device = await client.connect(GATEWAY), await client.connect(user, window=5)
    await device.expect("queue_empty")
    await gateway.submitted(
        *(
            submission(user, now_ms=clock.now_ms(), sender=business.account_id, receipt=False)
            for _ in range(12)
        )
    )
    first = await device.items(5)
    await device.ack(first)
    second = await device.items(5)
    await device.ack(second)
    third = await device.items(2)
    await device.ack(third)
    ids = [item.item_id for item in [*first, *second, *third]]
    assert len(set(ids)) == 12
    assert ids == sorted(ids)


async def test_a_repeat_gets_the_first_answer_and_stores_nothing(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway = await client.connect(GATEWAY)
    sent = submission(user, now_ms=clock.now_ms(), sender=business.account_id)
    results = await gateway.submitted(sent, sent)
    results += await gateway.submitted(sent)
    assert not any(result.HasField("refused") for result in results)
    assert await running.store.count(MAILBOXES) == 1
    day = clock.now_ms() // 86_400_000
    usage = await running.relay.usage.read(business.account_id, day)
    assert (usage.sent_messages, usage.sent_bytes) == (1, 10)


async def test_a_repeat_after_the_devices_changed_still_gets_the_first_answer(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway = await client.connect(GATEWAY)
    sent = submission(user, now_ms=clock.now_ms(), sender=business.account_id)
    await gateway.submitted(sent)
    await client.link(user)
    (again,) = await gateway.submitted(sent)
    assert not again.HasField("refused")


async def test_a_changed_device_list_is_told_and_nothing_is_stored(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    linked = await client.link(user)
    gateway = await client.connect(GATEWAY)
    user.registration_id += 1
    ghost = await client.register()
    ghost.device_id = 9
    sent = submission(user, now_ms=clock.now_ms(), sender=business.account_id)
    sent.envelopes.add(device_id=9, registration_id=1, type=3, body=b"x")
    (result,) = await gateway.submitted(sent)
    assert result.refused.reason == errors_pb2.ERROR_REASON_DEVICES_CHANGED
    assert list(result.missing_device_ids) == [linked.device_id]
    assert list(result.extra_device_ids) == [9]
    assert list(result.stale_device_ids) == [1]
    assert await running.store.count(SUBMITTED) == 0


async def test_only_the_first_device_gives_a_receipt(running: Running, clock: FakeClock) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    linked = await client.link(user)
    gateway = await client.connect(GATEWAY)
    one, two = await client.connect(user), await client.connect(linked)
    await gateway.submitted(
        submission(user, linked, now_ms=clock.now_ms(), sender=business.account_id)
    )
    await two.ack(await two.items(1))
    (receipts,) = await gateway.items(1)
    assert [receipt.device_id for receipt in receipts.receipts.receipts] == [linked.device_id]
    await gateway.ack([receipts])
    await one.ack(await one.items(1))
    # What is submitted now comes after a receipt would have.
    await gateway.submitted(submission(business, now_ms=clock.now_ms(), sender=business.account_id))
    (item,) = await gateway.items(1)
    assert item.WhichOneof("kind") == "envelope"


async def test_a_typing_sign_reaches_only_who_is_connected(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway = await client.connect(GATEWAY)
    here = submission(user, now_ms=clock.now_ms(), sender=business.account_id, ephemeral=True)
    await gateway.submitted(here)
    device = await client.connect(user)
    await device.expect("queue_empty")
    await gateway.submitted(here)
    (item,) = await device.items(1)
    assert item.envelope.message_id == here.message_id
    await device.ack([item])
    assert await running.store.count(MAILBOXES) == 0


async def test_an_expiry_time_of_a_wrong_clock_is_cut_and_not_refused(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway, device = await client.connect(GATEWAY), await client.connect(user)
    sent = submission(user, now_ms=clock.now_ms(), sender=business.account_id)
    sent.expire_time.FromSeconds(9_999_999_999)
    (result,) = await gateway.submitted(sent)
    assert not result.HasField("refused")
    (item,) = await device.items(1)
    ceiling_ms = clock.now_ms() + RelaySettings().max_ttl_ms
    assert item.envelope.expire_time.ToMilliseconds() == ceiling_ms


async def test_what_expires_gives_one_receipt(running: Running, clock: FakeClock) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    linked = await client.link(user)
    gateway = await client.connect(GATEWAY)
    sent = submission(user, linked, now_ms=clock.now_ms(), sender=business.account_id, ttl_ms=5_000)
    await gateway.submitted(sent)
    await clock.advance(5_000)
    running.relay.sweeper.wake()
    (item,) = await gateway.items(1)
    (receipt,) = item.receipts.receipts
    assert (receipt.kind, receipt.message_id) == (Receipt.KIND_EXPIRED, sent.message_id)
    device = await client.connect(user)
    await device.expect("queue_empty")


async def test_a_deleted_account_gives_gone_receipts_and_ends_its_streams(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway, device = await client.connect(GATEWAY), await client.connect(user)
    sent = submission(user, now_ms=clock.now_ms(), sender=business.account_id)
    await gateway.submitted(sent)
    await client.accounts.DeleteAccount(accounts_pb2.DeleteAccountRequest(), metadata=as_(user))
    (item,) = await gateway.items(1)
    (receipt,) = item.receipts.receipts
    assert (receipt.kind, receipt.message_id) == (Receipt.KIND_GONE, sent.message_id)
    assert (await device.fault()).code() == grpc.StatusCode.UNAUTHENTICATED
    (result,) = await gateway.submitted(
        submission(user, now_ms=clock.now_ms(), sender=business.account_id)
    )
    assert result.refused.reason == errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT


async def test_a_newer_stream_ends_the_older_one(running: Running) -> None:
    user = await running.client.register()
    older = await running.client.connect(user)
    newer = await running.client.connect(user)
    fault = await older.fault()
    assert fault.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "newer stream" in str(fault.details())
    await newer.expect("queue_empty")


async def test_what_was_not_acknowledged_comes_again_on_the_next_stream(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway, device = await client.connect(GATEWAY), await client.connect(user)
    await gateway.submitted(submission(user, now_ms=clock.now_ms(), sender=business.account_id))
    (item,) = await device.items(1)
    await device.close()
    device = await client.connect(user)
    assert await device.items(1) == [item]


async def test_draining_answers_what_was_read_and_ends_the_streams(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway = await client.connect(GATEWAY)
    await gateway.submitted(submission(user, now_ms=clock.now_ms(), sender=business.account_id))
    await running.relay.drain(5)
    assert (await gateway.next("draining")).grace.seconds == 5
    assert await gateway.call.read() is grpc.aio.EOF
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.connect(user)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        (lambda s: s.ClearField("message_id"), "INVALID_FIELD", "message_id"),
        (lambda s: setattr(s, "recipient_account_id", b"x"), "INVALID_FIELD", "recipient"),
        (lambda s: setattr(s, "recipient_account_id", os.urandom(16)), "UNKNOWN_RECIPIENT", ""),
        (lambda s: setattr(s, "sender_account_id", os.urandom(16)), "FORBIDDEN", ""),
        (lambda s: s.ClearField("envelopes"), "INVALID_FIELD", "envelopes"),
        (lambda s: s.envelopes.extend(list(s.envelopes) * 6), "INVALID_FIELD", "envelopes"),
        (lambda s: s.envelopes.extend(list(s.envelopes)), "INVALID_FIELD", "envelopes.device_id"),
        (lambda s: setattr(s.envelopes[0], "body", b""), "INVALID_FIELD", "envelopes.body"),
        (lambda s: setattr(s.envelopes[0], "body", bytes(65_537)), "INVALID_FIELD", "envelopes"),
        (lambda s: setattr(s.envelopes[0], "type", 1), "INVALID_FIELD", "envelopes.type"),
        (lambda s: setattr(s.envelopes[0], "device_id", 128), "INVALID_FIELD", "envelopes"),
        (lambda s: s.ClearField("expire_time"), "INVALID_FIELD", "expire_time"),
        (lambda s: s.expire_time.FromSeconds(1), "EXPIRED", ""),
    ],
)
async def test_a_bad_submission_is_refused_and_the_others_go_on(
    running: Running, clock: FakeClock, change: object, reason: str, field: str
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway = await client.connect(GATEWAY)
    good, bad = (
        submission(user, now_ms=clock.now_ms(), sender=business.account_id) for _ in range(2)
    )
    change(bad)  # type: ignore[operator]
    results = await gateway.submitted(bad, good)
    (fine,) = [result for result in results if result.message_id == good.message_id]
    (wrong,) = [result for result in results if result is not fine]
    assert not fine.HasField("refused")
    assert wrong.refused.reason == errors_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}")
    assert wrong.refused.field.startswith(field)
    assert await running.store.count(MAILBOXES) == 1


@pytest.mark.parametrize(
    "frame",
    [
        mailbox_pb2.ConnectRequest(),
        mailbox_pb2.ConnectRequest(open=mailbox_pb2.Open()),
        mailbox_pb2.ConnectRequest(acks=mailbox_pb2.Acks()),
        mailbox_pb2.ConnectRequest(acks=mailbox_pb2.Acks(item_ids=range(10_001))),
        mailbox_pb2.ConnectRequest(submissions=mailbox_pb2.Submissions()),
        mailbox_pb2.ConnectRequest(
            submissions=mailbox_pb2.Submissions(submissions=[mailbox_pb2.Submission()] * 257)
        ),
    ],
)
async def test_a_frame_that_does_not_belong_here_ends_the_stream(
    running: Running, frame: mailbox_pb2.ConnectRequest
) -> None:
    stream = await running.client.connect(await running.client.register())
    await stream.call.write(frame)
    assert (await stream.fault()).code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_first_frame_must_open(running: Running) -> None:
    user = await running.client.register()
    for frame in (
        mailbox_pb2.ConnectRequest(acks=mailbox_pb2.Acks(item_ids=[1])),
        mailbox_pb2.ConnectRequest(open=mailbox_pb2.Open(window=10_001)),
    ):
        call = running.client.mailbox.Connect(metadata=as_(user))
        await call.write(frame)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
