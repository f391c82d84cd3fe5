"""Devices against an in-process relay: conversations, lost streams, changed devices, restarts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import pytest
from letterlock.content.v1 import content_pb2
from letterlock.device import chores, keys, rows
from letterlock.device.device import Device
from letterlock.device.events import (
    DeviceEvent,
    IdentityChanged,
    IncomingMessage,
    Receipt,
    SendRefused,
    Undecryptable,
)
from letterlock.device.link import DeviceLink
from letterlock.device.relay import Relay
from letterlock.device.store import Changes, DeviceStore, MemoryStore
from letterlock.errors import (
    Busy,
    DeviceError,
    DevicesChanged,
    InvalidRequest,
    Replaced,
    Unauthenticated,
    UnknownRecipient,
    VerificationFailed,
)
from letterlock.relay.v1 import mailbox_pb2
from letterlock.v1 import errors_pb2

from tests.harness.fakes_relay import CODE, ConnectPlan, FakeRelay, serving_relay

ANNA, BERT = "+4915112345678", "+4915112345679"
TEXT = content_pb2.Content(text=content_pb2.Text(body="x"))


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture
async def relay() -> FakeRelay:
    return FakeRelay()


@pytest.fixture
async def target(relay: FakeRelay) -> AsyncIterator[str]:
    async with serving_relay(relay) as target:
        yield target


def device(target: str, store: DeviceStore | None = None, **options: object) -> Device:
    options = {"one_time_pre_keys": 2, **options}
    return Device(target, store=store or MemoryStore(), insecure=True, sleep=no_sleep, **options)


async def register(device: Device, number: str) -> None:
    await device.register(number, await device.request_verification(number), CODE)


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


async def message(device: Device) -> IncomingMessage:
    """The next message; other events on the way are an error."""
    event = await device.next_event()
    assert isinstance(event, IncomingMessage), event
    return event


async def event_of(device: Device, kind: type[DeviceEvent]) -> DeviceEvent:
    while True:
        event = await device.next_event()
        if isinstance(event, kind):
            return event


async def test_a_conversation(anna: Device, bert: Device) -> None:
    sent = await anna.send_text(BERT, "hello")
    first = await message(bert)
    assert (first.text, first.sender, first.device_id) == ("hello", anna.account_id, 1)
    assert first.message_id == sent
    first.ack()
    await bert.send_text(first.sender, "hello yourself")
    reply = await message(anna)
    assert (reply.text, reply.sender) == ("hello yourself", bert.account_id)
    for i in range(20):
        await anna.send_text(BERT, f"{i}", wait=False)
    assert [(await message(bert)).text for _ in range(20)] == [f"{i}" for i in range(20)]


async def test_every_kind_of_content(anna: Device, bert: Device) -> None:
    sent = await anna.send_text(BERT, "hello")
    await anna.send_reaction(BERT, sent, "👍")
    await anna.send_read_receipt(BERT, [sent])
    kinds = [(await message(bert)).content.WhichOneof("kind") for _ in range(3)]
    assert kinds == ["text", "reaction", "read_receipt"]
    await anna.send_typing(BERT)
    assert (await message(bert)).content.typing.started


@pytest.mark.parametrize(
    ("content", "field", "reason"),
    [
        ({}, "content", "INVALID_FIELD"),
        ({"text": {"body": ""}}, "content.text.body", "INVALID_FIELD"),
        ({"text": {"body": "é" * 8193}}, "content.text.body", "TOO_LARGE"),
        ({"read_receipt": {}}, "content.read_receipt.message_ids", "INVALID_FIELD"),
        (
            {"read_receipt": {"message_ids": [bytes(16)] * 101}},
            "content.read_receipt.message_ids",
            "INVALID_FIELD",
        ),
        (
            {"read_receipt": {"message_ids": [bytes(15)]}},
            "content.read_receipt.message_ids",
            "INVALID_FIELD",
        ),
        (
            {"reaction": {"message_id": bytes(15), "emoji": "x"}},
            "content.reaction.message_id",
            "INVALID_FIELD",
        ),
        ({"reaction": {"message_id": bytes(16)}}, "content.reaction.emoji", "INVALID_FIELD"),
        (
            {"reaction": {"message_id": bytes(16), "emoji": "x" * 65}},
            "content.reaction.emoji",
            "INVALID_FIELD",
        ),
    ],
)
async def test_bad_content_does_not_leave(
    anna: Device, content: dict[str, dict[str, object]], field: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await anna.send(BERT, content_pb2.Content(**content))  # type: ignore[arg-type]
    assert (refused.value.field, refused.value.reason) == (field, reason)
    assert refused.value.limit


async def test_the_largest_content_goes_out(anna: Device, bert: Device) -> None:
    await anna.send_text(BERT, "é" * 8192)
    await anna.send_read_receipt(BERT, [bytes(16)] * 100)
    await anna.send_reaction(BERT, bytes(16), "x" * 64)
    assert (await message(bert)).text == "é" * 8192
    with pytest.raises(InvalidRequest, match="UTF-8"):
        await anna.send_text(BERT, "\ud800")


async def test_the_relay_sees_sizes_in_steps_and_nothing_else(
    anna: Device, bert: Device, relay: FakeRelay
) -> None:
    await anna.send_text(BERT, "short secret")
    await message(bert)
    await bert.send_text(ANNA, "x")
    await message(anna)
    await anna.send_text(BERT, "another secret")
    await anna.send_text(BERT, "a")
    bodies = [submission.envelopes[0].body for submission in relay.received[-2:]]
    assert len(bodies[0]) == len(bodies[1])
    assert not any(b"secret" in s.SerializeToString() for s in relay.received)


@pytest.mark.parametrize(
    "plan",
    [
        ConnectPlan(opens=False),
        ConnectPlan(stores=0),
        ConnectPlan(stores=1, answers=False),
        ConnectPlan(stores=1),
        ConnectPlan(stores=3, answers=False),
    ],
    ids=["before opening", "before storing", "stored, unanswered", "answered", "three stored"],
)
async def test_a_sender_that_loses_its_stream_loses_and_doubles_nothing(
    anna: Device, bert: Device, relay: FakeRelay, plan: ConnectPlan
) -> None:
    relay.plans[anna.account_id] = deque([plan, plan])
    async with asyncio.TaskGroup() as tasks:
        for i in range(5):
            tasks.create_task(anna.send_text(BERT, f"{i}"))
    texts = [(await message(bert)).text for _ in range(5)]
    assert sorted(texts) == [f"{i}" for i in range(5)]
    # One message, one ciphertext: what went out again was the same to the last byte.
    bodies: dict[bytes, set[bytes]] = {}
    for submission in relay.received:
        bodies.setdefault(submission.message_id, set()).add(submission.envelopes[0].body)
    assert all(len(versions) == 1 for versions in bodies.values())


@pytest.mark.parametrize("delivers", [0, 1, 3])
async def test_a_receiver_that_loses_its_stream_loses_and_doubles_nothing(
    anna: Device, bert: Device, relay: FakeRelay, delivers: int
) -> None:
    for i in range(5):
        await anna.send_text(BERT, f"{i}")
    plan = ConnectPlan(delivers=delivers)
    relay.plans[bert.account_id] = deque([plan, plan])
    assert [(await message(bert)).text for _ in range(5)] == [f"{i}" for i in range(5)]
    await anna.send_text(BERT, "last")
    assert (await message(bert)).text == "last"


async def test_nothing_is_acknowledged_before_it_is_durable(
    target: str, anna: Device, relay: FakeRelay
) -> None:
    class Slow(MemoryStore):
        gate = asyncio.Event()
        waiting = asyncio.Event()

        async def commit(self, changes: Changes) -> None:
            if any(name.startswith(b"in/") for name in changes):
                self.waiting.set()
                await self.gate.wait()
            await super().commit(changes)

    async with device(target, Slow()) as bert:
        await register(bert, BERT)
        await anna.send_text(BERT, "hello")
        reading = asyncio.ensure_future(bert.next_event())
        await Slow.waiting.wait()
        assert not relay.acked
        assert not reading.done()
        Slow.gate.set()
        await reading
        await relay.until(lambda: len(relay.acked) == 1)


async def test_nothing_is_submitted_before_it_is_durable(
    target: str, bert: Device, relay: FakeRelay
) -> None:
    class Full(MemoryStore):
        async def commit(self, changes: Changes) -> None:
            if any(name.startswith(b"out/") for name in changes):
                raise DeviceError("no space")
            await super().commit(changes)

    async with device(target, Full()) as anna:
        await register(anna, ANNA)
        await anna.connect()
        with pytest.raises(DeviceError, match="no space"):
            await anna.send_text(BERT, "hello")
        # Memory is ahead of the disk now: a second message would use keys that a restart gives
        # out again.
        with pytest.raises(DeviceError, match="open the device again"):
            await anna.send_text(BERT, "hello")
    assert not relay.received


async def test_a_stream_that_opens_during_the_commit_does_not_take_it_along(
    target: str, bert: Device, relay: FakeRelay
) -> None:
    class Slow(MemoryStore):
        gate = asyncio.Event()
        waiting = asyncio.Event()

        async def commit(self, changes: Changes) -> None:
            if any(name.startswith(b"out/") for name in changes):
                self.waiting.set()
                await self.gate.wait()
            await super().commit(changes)

    async with device(target, Slow(), one_time_pre_keys=0) as anna:
        await register(anna, ANNA)
        sending = asyncio.ensure_future(anna.send_text(BERT, "hello"))
        await Slow.waiting.wait()
        await anna.connect()
        await bert.send_text(ANNA, "hello")  # a whole round trip, and more
        assert len(relay.received) == 1
        Slow.gate.set()
        await sending
    assert len(relay.received) == 2


async def test_giving_up_during_the_commit_harms_nothing(
    target: str, bert: Device, relay: FakeRelay
) -> None:
    class Slow(MemoryStore):
        gate = asyncio.Event()
        waiting = asyncio.Event()

        async def commit(self, changes: Changes) -> None:
            if any(name.startswith(b"out/") for name in changes):
                self.waiting.set()
                await self.gate.wait()
            await super().commit(changes)

    async with device(target, Slow()) as anna:
        await register(anna, ANNA)
        await anna.connect()
        sending = asyncio.ensure_future(anna.send_text(BERT, "one"))
        await Slow.waiting.wait()
        sending.cancel()
        Slow.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await anna.send_text(BERT, "two")
    assert [(await message(bert)).text for _ in range(2)] == ["one", "two"]


async def test_a_restart_goes_on_where_it_was(target: str, anna: Device, relay: FakeRelay) -> None:
    store = MemoryStore()
    async with device(target, store) as bert:
        await register(bert, BERT)
        await anna.send_text(BERT, "one")
        await anna.send_text(BERT, "two")
        (await message(bert)).ack()
        assert (await message(bert)).text == "two"
    async with device(target, store) as bert:
        assert bert.is_registered
        assert (await message(bert)).text == "two"  # not acked, so it is still there
        await bert.send_text(ANNA, "three")
    assert (await message(anna)).text == "three"


async def test_a_crash_after_the_commit_sends_the_same_ciphertext_again(
    target: str, bert: Device, relay: FakeRelay
) -> None:
    store = MemoryStore()
    relay.plans = {}
    async with device(target, store) as anna:
        await register(anna, ANNA)
        relay.plans[anna.account_id] = deque([ConnectPlan(stores=1, answers=False)] * 1)
        await anna.send_text(BERT, "hello", wait=False)
        await relay.until(lambda: len(relay.received) == 1)
        crashed = MemoryStore()
        crashed.rows = dict(store.rows)  # the disk as it is now; the process is lost
    async with device(target, crashed) as anna:
        await anna.connect()
        await relay.until(lambda: len(relay.received) >= 2)
    assert len({s.envelopes[0].body for s in relay.received}) == 1
    assert (await message(bert)).text == "hello"


async def test_a_second_device_gets_everything_too(
    target: str, anna: Device, bert: Device, relay: FakeRelay
) -> None:
    await anna.send_text(BERT, "one")
    await message(bert)
    async with device(target) as tablet:
        link = await bert.create_link()
        await tablet.link(DeviceLink.from_text(link.to_text()))
        assert (tablet.account_id, tablet.device_id) == (bert.account_id, 2)
        await anna.send_text(BERT, "two")  # the relay names the missing device
        assert (await message(bert)).text == "two"
        assert (await message(tablet)).text == "two"
        await tablet.send_text(ANNA, "from the tablet")
        assert (await message(anna)).device_id == 2
        assert len(await bert.devices()) == 2
        await bert.remove_device(2)
    await anna.send_text(BERT, "three")
    assert (await message(bert)).text == "three"


async def test_a_new_phone_is_reported_and_served(target: str, anna: Device, bert: Device) -> None:
    await anna.send_text(BERT, "one")
    await message(bert)
    async with device(target) as new_phone:
        await register(new_phone, BERT)
        await anna.send_text(BERT, "two")
        assert await event_of(anna, IdentityChanged) == IdentityChanged(new_phone.account_id)
        assert (await message(new_phone)).text == "two"
        await new_phone.send_text(ANNA, "three")
        assert (await message(anna)).text == "three"


async def test_a_new_phone_that_writes_first_is_reported(
    target: str, anna: Device, bert: Device
) -> None:
    await anna.send_text(BERT, "one")
    await message(bert)
    async with device(target) as new_phone:
        await register(new_phone, BERT)
        await new_phone.send_text(ANNA, "two")
        assert isinstance(await anna.next_event(), IdentityChanged)
        assert (await message(anna)).text == "two"
        assert anna.identity_of(bert.account_id) is not None


async def test_damaged_messages_are_reported_and_the_next_ones_read(
    anna: Device, bert: Device, relay: FakeRelay
) -> None:
    await anna.send_text(BERT, "one")
    await message(bert)
    await bert.send_text(ANNA, "x")
    await message(anna)

    def flip(envelope: mailbox_pb2.Envelope) -> None:
        envelope.body = envelope.body[:-1] + bytes([envelope.body[-1] ^ 1])

    relay.tamper = flip
    await anna.send_text(BERT, "two")
    relay.tamper = None
    await anna.send_text(BERT, "three")
    lost = await bert.next_event()
    assert isinstance(lost, Undecryptable)
    assert (lost.sender, lost.device_id, lost.reason) == (anna.account_id, 1, "INVALID_MESSAGE")
    assert (await message(bert)).text == "three"
    await relay.until(lambda: not relay.accounts[bert.account_id].devices[1].items)


async def test_a_relay_cannot_write_another_identity_into_a_known_session(
    anna: Device, bert: Device, relay: FakeRelay
) -> None:
    await anna.send_text(BERT, "one")
    await message(bert)
    known = bert.identity_of(anna.account_id)
    own = relay.accounts[bert.account_id].identity_key

    def swap(envelope: mailbox_pb2.Envelope) -> None:
        assert known is not None
        envelope.body = envelope.body.replace(known, own)

    relay.tamper = swap
    await anna.send_text(BERT, "two")  # still a pre-key message: its outer key can be rewritten
    await bert.next_event()
    assert bert.identity_of(anna.account_id) == known


async def test_a_message_under_a_known_id_is_given_once(
    anna: Device, bert: Device, relay: FakeRelay
) -> None:
    await anna.send_text(BERT, "one")
    (await message(bert)).ack()
    submission = relay.received[-1]
    relay.submitted.clear()
    bert_device = relay.accounts[bert.account_id].devices[1]
    relay.store(relay.accounts[anna.account_id].devices[1], submission)
    await anna.send_text(BERT, "two")
    assert (await message(bert)).text == "two"
    await relay.until(lambda: not bert_device.items)


async def test_a_known_id_is_known_after_a_restart(
    target: str, anna: Device, relay: FakeRelay
) -> None:
    store = MemoryStore()
    async with device(target, store) as bert:
        await register(bert, BERT)
        await anna.send_text(BERT, "one")
        (await message(bert)).ack()
        account = relay.accounts[bert.account_id]
        await relay.until(lambda: not account.devices[1].items)
    submission = relay.received[-1]
    relay.submitted.clear()
    relay.store(relay.accounts[anna.account_id].devices[1], submission)
    await anna.send_text(BERT, "two")
    async with device(target, store) as bert:
        await bert.connect()
        assert (await message(bert)).text == "two"


async def test_receipts_arrive(anna: Device, bert: Device, relay: FakeRelay) -> None:
    sent = await anna.send_text(BERT, "one")
    receipt = mailbox_pb2.Receipt(
        message_id=sent,
        recipient_account_id=bert.account_id,
        kind=mailbox_pb2.Receipt.KIND_DELIVERED,
    )
    item = mailbox_pb2.Item(receipts=mailbox_pb2.Receipts(receipts=[receipt]))
    relay.put_item(relay.accounts[anna.account_id].devices[1], item)
    assert await anna.next_event() == Receipt(sent, bert.account_id, "DELIVERED")


async def test_acked_texts_are_reported_as_read(target: str, anna: Device) -> None:
    async with device(target, read_receipts=True) as bert:
        await register(bert, BERT)
        ids = [await anna.send_text(BERT, f"{i}") for i in range(3)]
        for _ in ids:
            (await message(bert)).ack()
    receipts: list[bytes] = []
    while len(receipts) < 3:
        receipts.extend((await message(anna)).content.read_receipt.message_ids)
    assert receipts == ids


async def test_used_pre_keys_are_made_up_for(target: str, relay: FakeRelay, anna: Device) -> None:
    async with device(target, one_time_pre_keys=4) as bert:
        await register(bert, BERT)
        await anna.send_text(BERT, "one")
        keys = relay.accounts[bert.account_id].devices[1].keys
        assert len(keys.one_time_pre_keys) == 3
        del keys.one_time_pre_keys[1:]
        await message(bert)
        await relay.until(lambda: relay.uploads == 1)
        assert len(keys.one_time_pre_keys) == 4
        ids = [key.key_id for key in keys.one_time_pre_keys]
        assert len(set(ids)) == 4


async def test_refusals_reach_whoever_waits(anna: Device, bert: Device, relay: FakeRelay) -> None:
    full = errors_pb2.Refusal(reason=errors_pb2.ERROR_REASON_MAILBOX_FULL)
    full.retry_after.FromSeconds(3)
    relay.refusals.extend([full, full])
    with pytest.raises(Busy) as failed:
        await anna.send_text(BERT, "hello")
    assert failed.value.retry_after == 3
    sent = await anna.send_text(BERT, "hello", wait=False)
    refused = await event_of(anna, SendRefused)
    assert isinstance(refused, SendRefused)
    assert refused.message_id == sent


async def test_a_relay_that_always_finds_fault_is_not_humoured(
    anna: Device, bert: Device, relay: FakeRelay
) -> None:
    again = errors_pb2.Refusal(reason=errors_pb2.ERROR_REASON_DEVICES_CHANGED)
    relay.refusals.extend([again] * 10)
    with pytest.raises(DevicesChanged):
        await anna.send_text(BERT, "hello")
    assert len(relay.received) == 4


@pytest.mark.parametrize("to", ["+4915100000000", b"\x07" * 16])
async def test_nobody_there(anna: Device, to: str | bytes) -> None:
    with pytest.raises(UnknownRecipient):
        await anna.send_text(to, "hello")


async def test_bad_input(anna: Device, bert: Device) -> None:
    with pytest.raises(InvalidRequest, match="to"):
        await anna.send_text(b"short", "x")
    with pytest.raises(InvalidRequest, match="content"):
        await anna.send(BERT, content_pb2.Content())
    with pytest.raises(InvalidRequest, match="time_to_live"):
        await anna.send(BERT, TEXT, time_to_live=0)
    with pytest.raises(InvalidRequest, match="link"):
        DeviceLink.from_text("nonsense")


async def test_registration_goes_wrong_cleanly(target: str) -> None:
    store = MemoryStore()
    async with device(target, store) as anna:
        with pytest.raises(VerificationFailed):
            await anna.register(ANNA, "a" * 32, "000000")
        assert not store.rows
        with pytest.raises(DeviceError, match="not registered"):
            await anna.send_text(BERT, "x")
        await register(anna, ANNA)
        with pytest.raises(DeviceError, match="already"):
            await register(anna, ANNA)


async def test_a_taken_over_device_is_told(target: str, anna: Device, relay: FakeRelay) -> None:
    await anna.connect()
    async with device(target) as thief:
        await register(thief, ANNA)
        with pytest.raises(Unauthenticated):
            await anna.next_event()


async def test_replaced_is_raised_and_not_fought(target: str) -> None:
    store = MemoryStore()
    async with device(target, store) as anna:
        await register(anna, ANNA)
        await anna.connect()
        twin_store = MemoryStore()
        twin_store.rows = dict(store.rows)
        async with device(target, twin_store) as twin:
            await twin.connect()
            with pytest.raises(Replaced):
                await anna.next_event()
            with pytest.raises(Replaced):
                await anna.send_text(b"\x07" * 16, "x")


async def test_what_is_not_asked_for_stays_at_the_relay(
    target: str, anna: Device, relay: FakeRelay
) -> None:
    async with device(target, window=2) as bert:
        await register(bert, BERT)
        await bert.connect()
        for i in range(6):
            await anna.send_text(BERT, f"{i}")
        assert not relay.acked
        assert [(await message(bert)).text for _ in range(6)] == [f"{i}" for i in range(6)]


async def test_deleting_the_account_leaves_nothing(target: str, relay: FakeRelay) -> None:
    store = MemoryStore()
    async with device(target, store) as anna:
        await register(anna, ANNA)
        await anna.connect()
        await anna.delete_account()
        assert not anna.is_registered
    assert not store.rows
    assert not relay.accounts


async def test_many_devices_share_a_channel(target: str, relay: FakeRelay) -> None:
    from letterlock.channel import open_channel

    channel = open_channel(target, insecure=True)
    try:
        devices = [device(target, channel=channel, one_time_pre_keys=0) for _ in range(5)]
        for number, each in enumerate(devices):
            await each.__aenter__()
            await register(each, f"+491511234500{number}")
            await each.connect()
        for each in devices[1:]:
            await devices[0].send_text(each.account_id, "all")
            assert (await message(each)).text == "all"
        for each in devices:
            await each.aclose()
    finally:
        await channel.close()
    assert [t for t in asyncio.all_tasks() if (t.get_name() or "").startswith("letterlock")] == []


async def test_closing_lets_nobody_wait_for_ever(
    target: str, relay: FakeRelay, bert: Device
) -> None:
    store = MemoryStore()
    async with device(target, store) as anna:
        await register(anna, ANNA)
        relay.plans[anna.account_id] = deque([ConnectPlan(stores=1, answers=False)])
        sending = asyncio.ensure_future(anna.send_text(BERT, "hello"))
        await relay.until(lambda: len(relay.received) == 1)
        relay.plans[anna.account_id] = deque([ConnectPlan(opens=False)] * 1_000)
    with pytest.raises(DeviceError, match="closed"):
        await sending
    assert (await message(bert)).text == "hello"


async def test_a_session_never_answered_in_30_days_is_started_afresh(
    target: str, bert: Device, relay: FakeRelay
) -> None:
    now = 1_800_000_000_000

    async with device(target, now_ms=lambda: now) as anna:
        await register(anna, ANNA)
        await anna.send_text(BERT, "one")
        now += 31 * 24 * 3600 * 1000
        fetches = relay.fetches
        await anna.send_text(BERT, "two")
        assert relay.fetches == fetches + 1
    assert [(await message(bert)).text for _ in range(2)] == ["one", "two"]


async def test_old_signed_pre_keys_are_replaced_and_still_open_what_was_made_for_them(
    target: str, anna: Device, relay: FakeRelay
) -> None:
    now = 1_800_000_000_000
    store = MemoryStore()
    async with device(target, store, now_ms=lambda: now, one_time_pre_keys=1) as bert:
        await register(bert, BERT)
    await anna.send_text(BERT, "made for the first keys")
    keys = relay.accounts[bert_account(relay)].devices[1].keys
    first = keys.signed_pre_key.key_id
    now += 8 * 24 * 3600 * 1000
    async with device(target, store, now_ms=lambda: now, one_time_pre_keys=1) as bert:
        await bert.connect()
        await relay.until(lambda: relay.uploads == 1)
        assert keys.signed_pre_key.key_id != first
        assert (await message(bert)).text == "made for the first keys"


DAY_MS = 24 * 3600 * 1000


def signed_ids(store: MemoryStore) -> set[int]:
    name = rows.KEY + keys.SIGNED
    return {int.from_bytes(row[len(name) :], "big") for row in store.rows if row.startswith(name)}


class WatchedStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self._moved = asyncio.Event()

    async def commit(self, changes: Changes) -> None:
        await super().commit(changes)
        self._moved.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._moved.clear()
            await self._moved.wait()


async def test_replaced_keys_die_a_month_after_their_successor_came_however_long_it_took(
    target: str, anna: Device, relay: FakeRelay
) -> None:
    now, store = 1_800_000_000_000, WatchedStore()

    def phone() -> Device:
        return device(target, store, now_ms=lambda: now)

    async with phone() as bert:
        await register(bert, BERT)
    first = signed_ids(store)
    await anna.send_text(BERT, "while the phone was in a drawer")
    now += 100 * DAY_MS
    async with phone() as bert:
        await bert.connect()
        await relay.until(lambda: relay.uploads == 1)
        assert (await message(bert)).text == "while the phone was in a drawer"
    now += 29 * DAY_MS
    async with phone() as bert:
        await bert.connect()
        await relay.until(lambda: relay.uploads == 2)
    assert first < signed_ids(store)
    now += DAY_MS
    async with phone() as bert:
        await bert.connect()
        await store.until(lambda: not first & signed_ids(store))
    assert len(signed_ids(store)) == 2


async def test_keys_that_were_not_published_are_published_by_the_next_start(
    target: str, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, store, tried = 1_800_000_000_000, MemoryStore(), asyncio.Event()

    async def crash(*_: object) -> None:
        tried.set()
        raise Busy("the relay is away")

    async with device(target, store, now_ms=lambda: now) as bert:
        await register(bert, BERT)
    now += 8 * DAY_MS
    with monkeypatch.context() as patch:
        patch.setattr(Relay, "upload_pre_keys", crash)
        async with device(target, store, now_ms=lambda: now) as bert:
            await bert.connect()
            await tried.wait()
    published = relay.accounts[bert_account(relay)].devices[1].keys.signed_pre_key
    made = signed_ids(store)
    assert published.key_id in made
    assert len(made) == 2
    async with device(target, store, now_ms=lambda: now) as bert:
        await bert.connect()
        await relay.until(lambda: relay.uploads == 1)
    assert published.key_id == max(made)
    assert signed_ids(store) == made
    assert rows.UNPUBLISHED not in store.rows


async def test_a_device_that_stays_connected_and_a_clock_that_goes_back_get_new_keys(
    target: str, relay: FakeRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "LOOK_SECONDS", 0.01)
    now, store = 1_800_000_000_000, WatchedStore()
    async with device(target, store, now_ms=lambda: now, one_time_pre_keys=0) as bert:
        await register(bert, BERT)
        await bert.connect()
        for uploads, days in ((1, 8), (2, -400), (3, 8)):
            now += days * DAY_MS
            await relay.until(lambda uploads=uploads: relay.uploads >= uploads)
            await store.until(lambda: rows.UNPUBLISHED not in store.rows)
        assert relay.uploads == 3


async def test_a_session_on_which_nothing_comes_back_is_started_afresh(
    target: str, bert: Device, relay: FakeRelay
) -> None:
    now, store = 1_800_000_000_000, MemoryStore()
    async with device(target, store, now_ms=lambda: now) as anna:
        await register(anna, ANNA)
        await anna.send_text(BERT, "one")
        await bert.send_text((await message(bert)).sender, "answer")
        assert (await message(anna)).text == "answer"
        now += 31 * DAY_MS  # nothing was sent since the answer: the time does not run
        await anna.send_text(BERT, "two")
        now += 30 * DAY_MS
        await anna.send_text(BERT, "three")
        assert relay.fetches == 1
    now += 1
    async with device(target, store, now_ms=lambda: now) as anna:
        await anna.send_text(BERT, "four")
        assert relay.fetches == 2
    assert [(await message(bert)).text for _ in range(3)] == ["two", "three", "four"]


def bert_account(relay: FakeRelay) -> bytes:
    account = relay.by_number(BERT)
    assert account is not None
    return account.account_id


async def test_strangers_that_send_noise_leave_nothing_behind(
    bert: Device, relay: FakeRelay
) -> None:
    for sender in range(1, 4):
        for kind in (2, 3, 9):
            envelope = mailbox_pb2.Envelope(
                sender_account_id=bytes([sender]) * 16,
                sender_device_id=1,
                type=kind,
                body=b"\x44 noise",
            )
            relay.put_item(
                relay.accounts[bert.account_id].devices[1], mailbox_pb2.Item(envelope=envelope)
            )
    events = [await bert.next_event() for _ in range(9)]
    assert all(isinstance(event, Undecryptable) for event in events)
    await relay.until(lambda: len(relay.acked) == 9)
    assert bert.identity_of(b"\x01" * 16) is None
