"""Two devices of the SDK that mend a broken session between them, over a relay that tampers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from letterlock.content.v1.content_pb2 import Unencrypted
from letterlock.device.device import Device
from letterlock.device.events import DeviceEvent, IncomingMessage, SendRefused, Undecryptable
from letterlock.device.healing import MAX_RENEWALS
from letterlock.device.rows import SENT, Rows
from letterlock.device.sent import MAX_SENT, Sent, SentMessage
from letterlock.device.store import MemoryStore
from letterlock.relay.v1 import mailbox_pb2
from tripleratchet import DecryptionError, plaintext_content

from tests.harness.fakes_relay import FakeRelay, serving_relay
from tests.unit.sdk.test_device import ANNA, BERT, device, event_of, message, register


@pytest.fixture
async def relay() -> FakeRelay:
    return FakeRelay()


@pytest.fixture
async def target(relay: FakeRelay) -> AsyncIterator[str]:
    async with serving_relay(relay) as target:
        yield target


@pytest.fixture
async def anna(target: str) -> AsyncIterator[Device]:
    async with device(target) as anna:
        await register(anna, ANNA)
        yield anna


@pytest.fixture
async def bert(target: str) -> AsyncIterator[Device]:
    async with device(target) as bert:
        await register(bert, BERT)
        yield bert


def damage(envelope: mailbox_pb2.Envelope) -> None:
    """What the relay can always do to a ciphertext."""
    if envelope.type != 8:
        envelope.body = envelope.body[:-1] + bytes([envelope.body[-1] ^ 1])


def first_only(relay: FakeRelay) -> Callable[[mailbox_pb2.Envelope], None]:
    def tamper(envelope: mailbox_pb2.Envelope) -> None:
        relay.tamper = None
        damage(envelope)

    return tamper


async def known(anna: Device, bert: Device) -> None:
    """They have written to each other."""
    await anna.send_text(BERT, "one")
    await message(bert)
    await bert.send_text(ANNA, "two")
    await message(anna)


def resends(relay: FakeRelay) -> list[mailbox_pb2.Submission]:
    return [made for made in relay.received if made.HasField("resend")]


async def test_a_damaged_message_comes_again_under_the_same_id(
    anna: Device, bert: Device, relay: FakeRelay
) -> None:
    await known(anna, bert)
    relay.tamper = first_only(relay)
    lost_id = await anna.send_text(BERT, "important")
    lost = await bert.next_event()
    assert isinstance(lost, Undecryptable)
    assert (lost.message_id, lost.resend_requested) == (lost_id, True)
    anna_reads = event_of(anna, IncomingMessage)
    await bert.send_text(ANNA, "and you?")
    await anna_reads  # anna's application asks for events: the report is taken in on the way
    healed = await message(bert)
    assert (healed.text, healed.message_id) == ("important", lost_id)
    assert len(relay.failed) == 1
    (again,) = resends(relay)
    assert (again.resend.message_id, again.resend.attempt) == (lost_id, 1)
    assert again.message_id != lost_id
    assert again.envelopes[0].type == 3  # a new session, from a fresh bundle
    await bert.send_text(ANNA, "got it")
    assert (await message(anna)).text == "got it"


async def test_what_is_damaged_every_time_is_given_up_by_both(
    anna: Device, bert: Device, relay: FakeRelay
) -> None:
    await known(anna, bert)
    relay.tamper = damage
    lost_id = await anna.send_text(BERT, "never")
    asked: list[bool] = []
    for _ in range(4):
        lost = await bert.next_event()
        assert isinstance(lost, Undecryptable)
        assert lost.message_id == lost_id
        asked.append(lost.resend_requested)
        if len(asked) < 4:
            report_then = len(resends(relay)) + 1
            await poll(anna, lambda n=report_then: len(resends(relay)) >= n, relay)
    assert asked == [True, True, True, False]
    refused = await event_of(anna, SendRefused)
    assert isinstance(refused, SendRefused)
    assert (refused.message_id, refused.error.reason) == (lost_id, "UNDECRYPTABLE")
    assert [made.resend.attempt for made in resends(relay)] == [1, 2, 3]


async def poll(sender: Device, condition: Callable[[], bool], relay: FakeRelay) -> None:
    """Have a device take in what waits, in the background, until the relay has seen the effect."""

    async def read() -> None:
        async for _ in sender.events():
            pass

    reading = asyncio.create_task(read())
    try:
        await relay.until(condition)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def report(
    relay: FakeRelay, to: Device, sender: Device, message_id: bytes, *, attempt: int = 0
) -> None:
    """A report that the relay has made up."""
    key = b"\x05" + bytes(32)
    said = Unencrypted(
        decryption_error=DecryptionError(key, 1, 1).to_bytes(),
        message_id=message_id,
        attempt=attempt,
    )
    envelope = mailbox_pb2.Envelope(
        message_id=b"r" * 16,
        sender_account_id=sender.account_id,
        sender_device_id=1,
        type=8,
        body=plaintext_content(said.SerializeToString()),
    )
    relay.put_item(relay.accounts[to.account_id].devices[1], mailbox_pb2.Item(envelope=envelope))


async def test_a_forged_report_gets_a_message_again_for_the_same_key_and_no_oftener(
    anna: Device, bert: Device, relay: FakeRelay
) -> None:
    await known(anna, bert)
    message_id = await anna.send_text(BERT, "secret")
    assert (await message(bert)).text == "secret"
    for _ in range(3):  # repeated: only the first is news
        report(relay, anna, bert, message_id)
    await poll(anna, lambda: len(relay.acked) >= 3 and len(resends(relay)) == 1, relay)
    (again,) = resends(relay)
    assert again.envelopes[0].type == 2  # the ratchet key is not the session's: it stays
    await bert.send_text(ANNA, "x")
    assert (await message(anna)).text == "x"
    await anna.send_text(BERT, "next")
    assert (await message(bert)).text == "next"  # the repeat was dropped by its id


async def test_a_forged_report_gets_no_message_for_another_key(
    anna: Device, bert: Device, relay: FakeRelay
) -> None:
    await known(anna, bert)
    message_id = await anna.send_text(BERT, "secret")
    await message(bert)
    account = relay.accounts[bert.account_id]
    sessions = anna._state.sessions  # type: ignore[union-attr]
    sessions.archive(bert.account_id, [1])  # as a forged report with the right key would
    account.identity_key = relay.accounts[anna.account_id].identity_key
    acked = len(relay.acked)
    report(relay, anna, bert, message_id)
    await poll(anna, lambda: len(relay.acked) > acked, relay)
    assert resends(relay) == []
    assert anna.identity_of(bert.account_id) != account.identity_key


async def test_nobody_can_ask_for_a_message_to_somebody_else(
    anna: Device, bert: Device, relay: FakeRelay, target: str
) -> None:
    await known(anna, bert)
    message_id = await anna.send_text(BERT, "for bert")
    async with device(target) as carl:
        await register(carl, "+4915112345670")
        acked = len(relay.acked)
        report(relay, anna, carl, message_id)
        await poll(anna, lambda: len(relay.acked) > acked, relay)
    assert resends(relay) == []


async def test_noise_on_the_newest_chain_costs_a_bounded_number_of_sessions(
    anna: Device, bert: Device, relay: FakeRelay
) -> None:
    await known(anna, bert)
    sessions = bert._state.sessions  # type: ignore[union-attr]
    archived = 0
    now_ms = time.time_ns() // 1_000_000
    for n in range(MAX_RENEWALS + 2):
        relay.tamper = damage
        await anna.send_text(BERT, f"{n}")
        relay.tamper = None
        lost: DeviceEvent = await bert.next_event()
        assert isinstance(lost, Undecryptable)
        archived += not sessions.devices(anna.account_id, now_ms)
        if not sessions.devices(anna.account_id, now_ms):
            await bert.send_text(ANNA, "again")  # from a fresh bundle
            await event_of(anna, IncomingMessage)
            await anna.send_text(BERT, "yes")
            while not isinstance(await bert.next_event(), IncomingMessage):
                pass
    assert archived <= MAX_RENEWALS


async def test_a_resend_survives_a_restart_of_the_sender(
    bert: Device, relay: FakeRelay, target: str
) -> None:
    store = MemoryStore()
    async with device(target, store) as anna:
        await register(anna, ANNA)
        await known(anna, bert)
        relay.tamper = first_only(relay)
        lost_id = await anna.send_text(BERT, "important")
        assert isinstance(await bert.next_event(), Undecryptable)
    async with device(target, store) as anna:
        await poll(anna, lambda: bool(resends(relay)), relay)
    healed = await message(bert)
    assert (healed.text, healed.message_id) == ("important", lost_id)


def test_kept_messages_are_bounded_die_and_come_back_from_their_rows() -> None:
    rows = Rows()
    sent = Sent(rows, {})
    ids = [n.to_bytes(16, "big") for n in range(MAX_SENT + 2)]
    sent.keep(ids[0], SentMessage(b"a" * 16, 5, b"old"), now_ms=1)
    for id_ in ids[1:]:
        sent.keep(id_, SentMessage(b"a" * 16, 100, b"text"), now_ms=6)
    assert len(sent) == MAX_SENT
    last = ids[-1]
    assert sent.get(last, b"b" * 16, 6) is None
    assert sent.get(last, b"a" * 16, 100) is None
    assert [sent.resent(last, 1), sent.resent(last, 2), sent.resent(last, 1)] == [1, 1, 2]
    stored = {name: value for name, value in rows.take().items() if value is not None}
    assert all(name.startswith(SENT) for name in stored)
    found = Sent(Rows(), stored).get(last, b"a" * 16, 6)
    assert found is not None
    assert (found.plaintext, found.attempts) == (b"text", {1: 2, 2: 1})
    assert "text" not in repr(found)
