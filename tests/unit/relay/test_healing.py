"""What two devices that mend a session put through the relay: decryption-error messages, messages
sent again, and acknowledgements of what could not be decrypted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import pytest
from letterlock.relay.v1 import mailbox_pb2
from letterlock.relay.v1.mailbox_pb2 import Receipt
from letterlock.v1 import errors_pb2

from tests.harness.clock import FakeClock
from tests.harness.relay import GATEWAY, Peer, Running, Stream, submission


async def fail(stream: Stream, items: Iterable[mailbox_pb2.Item]) -> None:
    """Acknowledge as not decrypted."""
    ids = [item.item_id for item in items]
    await stream.call.write(mailbox_pb2.ConnectRequest(acks=mailbox_pb2.Acks(failed_item_ids=ids)))


def again(
    to: Peer, *, sender: Peer, message_id: bytes, now_ms: int, attempt: int = 1
) -> mailbox_pb2.Submission:
    made = submission(to, now_ms=now_ms, sender=sender.account_id)
    made.resend.message_id = message_id
    made.resend.attempt = attempt
    return made


async def test_a_message_that_was_not_decrypted_gives_no_receipt_and_its_repeat_does(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway, device = await client.connect(GATEWAY), await client.connect(user)
    first = submission(user, now_ms=clock.now_ms(), sender=business.account_id)
    await gateway.submitted(first)
    await fail(device, await device.items(1))

    sent = again(
        user, sender=business, message_id=first.message_id, now_ms=clock.now_ms(), attempt=2
    )
    (result,) = await gateway.submitted(sent)
    assert not result.HasField("refused")
    (item,) = await device.items(1)
    assert item.envelope.message_id == sent.message_id
    assert item.envelope.resend == sent.resend

    await device.ack([item])
    (receipts,) = await gateway.items(1)
    (receipt,) = receipts.receipts.receipts
    assert receipt.kind == Receipt.KIND_DELIVERED
    assert receipt.message_id == first.message_id


async def test_one_device_that_fails_leaves_the_receipt_to_the_other(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    other = await client.link(user)
    gateway = await client.connect(GATEWAY)
    devices = await client.connect(user), await client.connect(other)
    sent = submission(user, other, now_ms=clock.now_ms(), sender=business.account_id)
    await gateway.submitted(sent)
    await fail(devices[0], await devices[0].items(1))
    await devices[1].ack(await devices[1].items(1))
    (receipts,) = await gateway.items(1)
    (receipt,) = receipts.receipts.receipts
    assert (receipt.kind, receipt.device_id) == (Receipt.KIND_DELIVERED, other.device_id)


async def test_mending_concerns_one_device_and_costs_nobody(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    other = await client.link(user)
    gateway = await client.connect(GATEWAY)
    error = submission(other, now_ms=clock.now_ms(), sender=business.account_id)
    error.envelopes[0].type = 8
    error.envelopes[0].registration_id = 0  # whoever has no session does not know it
    resend = again(user, sender=business, message_id=os.urandom(16), now_ms=clock.now_ms())
    results = await gateway.submitted(error, resend)
    assert not any(result.HasField("refused") for result in results)
    (item,) = await (await client.connect(other)).items(1)
    assert item.envelope.type == 8
    usage = await running.relay.usage.read(business.account_id, clock.now_ms() // 86_400_000)
    assert (usage.sent_messages, usage.sent_bytes) == (0, 0)


async def test_a_device_that_is_gone_or_another_one_now_is_named(
    running: Running, clock: FakeClock
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway = await client.connect(GATEWAY)
    error = submission(user, now_ms=clock.now_ms(), sender=business.account_id)
    error.envelopes[0].type, error.envelopes[0].device_id = 8, 9
    resend = again(user, sender=business, message_id=os.urandom(16), now_ms=clock.now_ms())
    resend.envelopes[0].registration_id += 1
    gone, stale = await gateway.submitted(error, resend)
    changed = errors_pb2.ERROR_REASON_DEVICES_CHANGED
    assert gone.refused.reason == stale.refused.reason == changed
    assert list(gone.extra_device_ids) == [9]
    assert not gone.missing_device_ids
    assert list(stale.stale_device_ids) == [1]


def short_id(made: mailbox_pb2.Submission) -> None:
    made.resend.message_id = b"short"


def no_attempt(made: mailbox_pb2.Submission) -> None:
    made.resend.attempt = 0


def too_often(made: mailbox_pb2.Submission) -> None:
    made.resend.attempt = 4


def not_encrypted(made: mailbox_pb2.Submission) -> None:
    made.envelopes[0].type = 8


def to_two(made: mailbox_pb2.Submission) -> None:
    made.envelopes.add().CopyFrom(made.envelopes[0])
    made.envelopes[1].device_id = 2


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (short_id, "resend.message_id"),
        (no_attempt, "resend.attempt"),
        (too_often, "resend.attempt"),
        (not_encrypted, "envelopes.type"),
        (to_two, "envelopes"),
    ],
)
async def test_a_malformed_resend_is_refused_by_field(
    running: Running,
    clock: FakeClock,
    spoil: Callable[[mailbox_pb2.Submission], None],
    field: str,
) -> None:
    client = running.client
    user, business = await client.register(), await client.business()
    gateway = await client.connect(GATEWAY)
    made = again(user, sender=business, message_id=os.urandom(16), now_ms=clock.now_ms())
    spoil(made)
    (result,) = await gateway.submitted(made)
    assert result.refused.reason == errors_pb2.ERROR_REASON_INVALID_FIELD
    assert result.refused.field == field
