"""Messages that one end cannot decrypt, in both directions: told, sent again, taken once; and what
somebody in between can make of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import pytest
from letterlock.content.v1.content_pb2 import Unencrypted
from letterlock.device.device import Device
from letterlock.device.events import Receipt, SendRefused, Undecryptable
from letterlock.device.sent import SentMessage
from letterlock.relay.v1 import mailbox_pb2
from letterlock.v1 import errors_pb2
from letterlock.v1 import messaging_pb2 as api
from letterlockd.gateway import renewals as renewals_module
from letterlockd.gateway.room import Gateway
from letterlockd.gateway.tables import ASKED, CONVERSATIONS, MESSAGES, OUTBOX, SEEN, asked_key
from letterlockd.model.ids import AccountId, MessageId, conversation_id
from letterlockd.records.v1.gateway_pb2 import AskedRecord, MessageRecord
from letterlockd.records.v1.inbox_pb2 import StoredEvent
from letterlockd.relay.items import read_row
from letterlockd.relay.tables import MAILBOXES
from letterlockd.store.port import Delete, Put
from tripleratchet import CiphertextMessage, DecryptionError, plaintext_content
from tripleratchet.messages import PreKeySignalMessage

from tests.harness.clock import settle, until
from tests.harness.conversations import text_payload
from tests.harness.gateway import (
    Business,
    GatewayStore,
    World,
    gateway_store,
    message,
    outbox_empty,
    reading,
)
from tests.harness.people import forget_sessions

USER = "+4915112345678"
_Reason = api.UndecryptableMessage
DELIVERED, FAILED = api.MESSAGE_STATUS_DELIVERED, api.MESSAGE_STATUS_FAILED


def damage(envelope: mailbox_pb2.Envelope) -> None:
    envelope.body = envelope.body[:-1] + bytes([envelope.body[-1] ^ 1])


class Noise:
    """Damages ciphertexts on their way to the gateway, `left` of them."""

    def __init__(self, gateway: Gateway) -> None:
        self.left = 0
        self.seen: list[mailbox_pb2.Envelope] = []
        self._delivered = gateway.inbound.delivered
        gateway.inbound.delivered = self.delivered  # type: ignore[method-assign]

    def delivered(self, items: Sequence[mailbox_pb2.Item], epoch: int) -> None:
        for item in items:
            if not item.HasField("envelope"):
                continue
            self.seen.append(item.envelope)
            if item.envelope.type != 8 and self.left > 0:
                self.left -= 1
                damage(item.envelope)
        self._delivered(items, epoch)


class Deaf:
    """Damages ciphertexts on their way into a device, `left` of them; keeps what came."""

    def __init__(self, device: Device) -> None:
        self.left = 0
        self.seen: list[mailbox_pb2.Envelope] = []
        inbox = state(device).inbox
        self._take_in = inbox.take_in
        inbox.take_in = self.take_in

    def take_in(self, item: mailbox_pb2.Item, now_ms: int) -> Any:
        if item.HasField("envelope"):
            self.seen.append(item.envelope)
            if item.envelope.type != 8 and self.left > 0:
                self.left -= 1
                damage(item.envelope)
        return self._take_in(item, now_ms)


def state(device: Device) -> Any:
    return device._state


def undecryptable(events: Sequence[StoredEvent]) -> list[StoredEvent]:
    return [event for event in events if event.HasField("undecryptable")]


async def forget_conversations(store: GatewayStore) -> None:
    rows = await store.scan(CONVERSATIONS, limit=100)
    await store.commit([[Delete(CONVERSATIONS, key) for key, _ in rows]])


async def talk(business: Business, reader: Any) -> None:
    """Both have written to each other."""
    await reader.device.send_text(business.sender.phone_number, "hello")
    await business.inbound(1)
    await business.send(message("hello", to=USER))
    await reader.texts(1)


async def accepted(business: Business, key: str, text: str = "important") -> str:
    (result,) = await business.send(message(key, to=USER, text=text))
    return result.accepted.message_id


async def record_of(store: GatewayStore, message_id: str) -> MessageRecord:
    row = await store.get(MESSAGES, bytes.fromhex(message_id))
    assert row is not None
    return MessageRecord.FromString(row.value)


# From the user to the business.


async def test_a_users_message_is_asked_for_again_and_taken_once(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await talk(business, reader)
        noise = Noise(gateway)
        noise.left = 1
        sent = await reader.device.send_text(business.sender.phone_number, "important")
        await business.inbound(2)
        (lost,) = undecryptable(business.seen)
        assert lost.undecryptable.message_id == sent
        assert lost.undecryptable.resend_requested
        assert lost.undecryptable.reason == _Reason.REASON_INVALID
        assert gateway.counters.asked_again == gateway.counters.healed == 1
        assert await store.count(ASKED) == 0
        await until(
            lambda: any(isinstance(e, Receipt) and e.message_id == sent for e in reader.others)
        )
        healed = next(envelope for envelope in noise.seen if envelope.HasField("resend"))
        assert healed.resend.message_id == sent
        # What the relay gives again, by whatever name, is known now.
        again = mailbox_pb2.Item(item_id=99, envelope=healed)
        gateway.inbound.delivered([again], 1)
        await until(lambda: gateway.counters.duplicates >= 1)
        await reader.device.send_text(business.sender.phone_number, "and on")
        assert len(await business.inbound(3)) == 3


async def test_what_cannot_be_decrypted_and_comes_again_in_hand_is_no_delivery(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged as delivered, its sender would not send it again."""
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await talk(business, reader)
        delivered, acknowledge = gateway.inbound.delivered, gateway.inbound._acknowledge
        damaged: list[int] = []
        told: list[bool] = []  # of each delivery of it: whether it was told as decrypted

        def twice(items: Sequence[mailbox_pb2.Item], epoch: int) -> None:
            for item in items:
                if item.HasField("envelope") and not damaged:
                    damage(item.envelope)
                    damaged.append(item.item_id)
            delivered(items, epoch)
            delivered(items, epoch)

        def noting(item_ids: list[int], epoch: int, failed: list[int]) -> None:
            for ids, decrypted in ((item_ids, True), (failed, False)):
                told.extend(decrypted for id_ in ids if id_ in damaged)
            acknowledge(item_ids, epoch, failed)

        monkeypatch.setattr(gateway.inbound, "_acknowledge", noting)
        monkeypatch.setattr(gateway.inbound, "delivered", twice)
        await reader.device.send_text(business.sender.phone_number, "important")
        await until(lambda: len(told) == 2)
        assert told == [False, False]


async def test_a_resend_of_what_was_taken_already_is_dropped(world: World) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await talk(business, reader)
        sent = await reader.device.send_text(business.sender.phone_number, "once")
        await business.inbound(2)
        # The relay makes up a report; the device believes it and sends again.
        keep = state(reader.device).sent
        account = business.sender.account_id
        seen = Noise(gateway)
        device_state = state(reader.device)
        later_ms = world.clock.now_ms() + 3_600_000
        keep.keep(sent, SentMessage(account, later_ms, text_payload("once", sent)), 0)
        relay_says(world, reader.device, account, sent)
        await until(lambda: any(envelope.HasField("resend") for envelope in seen.seen))
        await until(lambda: gateway.counters.duplicates == 1)
        await reader.device.send_text(business.sender.phone_number, "twice")
        assert len(await business.inbound(3)) == 3
        assert device_state.sessions.devices(account, world.clock.now_ms())


def relay_says(world: World, device: Device, account: bytes, message_id: bytes) -> None:
    """A report that nobody wrote, put into a device's stream."""
    said = Unencrypted(
        decryption_error=DecryptionError(None, 1, 1).to_bytes(), message_id=message_id
    )
    envelope = mailbox_pb2.Envelope(
        message_id=os.urandom(16),
        sender_account_id=account,
        sender_device_id=1,
        type=8,
        body=plaintext_content(said.SerializeToString()),
    )
    mailbox = device._connection._mailbox  # type: ignore[union-attr]
    mailbox._held.append(mailbox_pb2.Item(item_id=1 << 40, envelope=envelope))
    mailbox.news.set()


async def test_what_fails_every_time_is_given_up_and_told(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await talk(business, reader)
        noise = Noise(gateway)
        noise.left = 100
        sent = await reader.device.send_text(business.sender.phone_number, "never")
        events = await business.events(lambda seen: len(undecryptable(seen)) == 4)
        asked = [event.undecryptable.resend_requested for event in undecryptable(events)]
        assert asked == [True, True, True, False]
        assert {event.undecryptable.message_id for event in undecryptable(events)} == {sent}
        await until(lambda: any(isinstance(e, SendRefused) for e in reader.others))
        assert await store.count(ASKED) == 0
        noise.left = 0
        await reader.device.send_text(business.sender.phone_number, "fine again")
        assert len(await business.inbound(2)) == 2


async def test_a_gateway_without_the_conversation_gets_it_back(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await talk(business, reader)
        await forget_conversations(store)
        await reader.device.send_text(business.sender.phone_number, "are you there?")
        await business.inbound(2)
        (lost,) = undecryptable(business.seen)
        assert lost.undecryptable.reason == _Reason.REASON_NO_SESSION
        await accepted(business, "answer", "yes")
        assert await reader.texts(2) == ["hello", "yes"]


async def test_an_error_that_is_lost_is_told_in_the_end(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await talk(business, reader)
        account = AccountId(reader.device.account_id)
        number = await gateway.inbound._numbers.get(business.sender.account_id)
        assert number is not None
        conversation = conversation_id(number.account, number.pseudonym(account))
        lost_id = MessageId(os.urandom(16))
        row = AskedRecord(device_id=1).SerializeToString()
        await store.commit([[Put(ASKED, asked_key(conversation, lost_id), row, 1)]])
        await gateway.expiry.look()
        events = await business.events(lambda seen: bool(undecryptable(seen)))
        (lost,) = undecryptable(events)
        assert lost.undecryptable.message_id == lost_id
        assert lost.undecryptable.reason == _Reason.REASON_NOT_RESENT
        assert not lost.undecryptable.resend_requested
        assert lost.pseudonym == number.pseudonym(account)
        assert await store.count(ASKED) == 0
        assert gateway.counters.not_healed == 1


# From the business to the user.


async def test_a_message_that_a_device_cannot_decrypt_comes_again_before_it_is_delivered(
    world: World,
) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await talk(business, reader)
        deaf = Deaf(reader.device)
        deaf.left = 1
        message_id = await accepted(business, "k")
        assert await reader.texts(2) == ["hello", "important"]
        assert reader.messages[-1].message_id.hex() == message_id
        await business.status(message_id, DELIVERED)
        assert [envelope.resend.attempt for envelope in deaf.seen] == [0, 1]
        assert deaf.seen[1].type == 3
        lost = next(event for event in reader.others if isinstance(event, Undecryptable))
        assert (lost.message_id.hex(), lost.resend_requested) == (message_id, True)
        record = await record_of(store, message_id)
        assert [(to.device_id, to.attempts) for to in record.resent] == [(1, 1)]
        assert record.sealed_payload == b""
        await reader.device.send_text(business.sender.phone_number, "thanks")
        await business.inbound(2)


async def test_a_message_that_a_device_never_decrypts_fails_there(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await talk(business, reader)
        deaf = Deaf(reader.device)
        deaf.left = 100
        message_id = await accepted(business, "k")
        failed = await business.status(message_id, FAILED)
        why = failed.status.failure
        assert (why.hop, why.reason) == (
            api.HOP_DEVICE,
            errors_pb2.ERROR_REASON_UNDECRYPTABLE,
        )
        assert why.retryable
        assert [envelope.resend.attempt for envelope in deaf.seen] == [0, 1, 2, 3]
        assert (await record_of(store, message_id)).sealed_payload == b""
        deaf.left = 0
        await accepted(business, "k2", "fine again")
        assert await reader.texts(2) == ["hello", "fine again"]


async def test_many_in_flight_share_one_new_session(world: World) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await talk(business, reader)
        fetched = 0
        fetch = gateway.uplink.calls.fetch_bundles

        async def counting(targets: Any) -> Any:
            nonlocal fetched
            fetched += 1
            return await fetch(targets)

        gateway._repair._source = Source(counting)
        forget_sessions(reader.device)
        texts = [f"message {n}" for n in range(20)]
        sent = [message(f"k{n}", to=USER, text=text) for n, text in enumerate(texts)]
        results = await business.send(*sent)
        assert sorted((await reader.texts(21))[1:], key=len_and_text) == texts
        for result in results:
            await business.status(result.accepted.message_id, DELIVERED)
        assert gateway.counters.resent == 20
        assert fetched == 1


class Source:
    def __init__(self, fetch: Any) -> None:
        self.fetch_bundles = fetch


def len_and_text(text: str | None) -> tuple[int, str]:
    return len(text or ""), text or ""


async def test_both_ends_mend_at_once(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await talk(business, reader)
        noise, deaf = Noise(gateway), Deaf(reader.device)
        noise.left = deaf.left = 3
        there = [message(f"k{n}", to=USER, text=f"down {n}") for n in range(5)]
        back = [
            reader.device.send_text(business.sender.phone_number, f"up {n}", wait=False)
            for n in range(5)
        ]
        results, *_ = await asyncio.gather(business.send(*there), *back)
        texts = await reader.texts(6)
        assert sorted(texts[1:], key=len_and_text) == [f"down {n}" for n in range(5)]
        assert len(await business.inbound(6)) == 6
        for result in results:
            await business.status(result.accepted.message_id, DELIVERED)
        await accepted(business, "last", "quiet again")
        assert (await reader.texts(7))[-1] == "quiet again"


async def test_only_the_device_that_failed_gets_it_again(world: World) -> None:
    first = await world.device(USER)
    second = await world.device(of=first)
    async with world.gateway() as gateway, reading(first, second) as (one, two):
        business = await world.business(gateway)
        await one.device.send_text(business.sender.phone_number, "hello")
        await business.inbound(1)
        await business.send(message("hello", to=USER))
        await one.texts(1)
        await two.texts(1)
        deaf, other = Deaf(two.device), Deaf(one.device)
        deaf.left = 1
        message_id = await accepted(business, "k")
        await one.texts(2)
        await business.status(message_id, DELIVERED)
        if gateway.counters.resent:  # the first device's receipt was the later one
            assert await two.texts(2) == ["hello", "important"]
        await accepted(business, "k2", "more")
        assert (await two.texts(2))[-1] in ("more", "important")
        await until(lambda: any(m.text == "more" for m in two.messages))
        assert all(not envelope.HasField("resend") for envelope in other.seen)


async def test_a_gateway_that_stops_between_archive_and_resend_goes_on(world: World) -> None:
    store = gateway_store()
    async with reading(await world.device(USER)) as (reader,):
        async with world.gateway(store) as gateway:
            business = await world.business(gateway)
            await talk(business, reader)
            asked = asyncio.Event()

            async def never(targets: Any) -> Any:
                asked.set()
                await asyncio.Event().wait()

            gateway._repair._source = Source(never)
            forget_sessions(reader.device)
            message_id = await accepted(business, "k")
            await asked.wait()
            assert (await record_of(store, message_id)).sealed_payload
        async with world.gateway(store) as gateway:
            again = Business(gateway, business.sender, b"")
            assert await reader.texts(2) == ["hello", "important"]
            await again.status(message_id, DELIVERED)
            await outbox_empty(gateway)
        assert await store.count(OUTBOX) == 0


# What somebody in between, or a user, can make of reports.


class Forger:
    """Writes reports in a user's name, as the relay could."""

    def __init__(self, gateway: Gateway, business: Business) -> None:
        self._gateway = gateway
        self._business = business
        self._item = 1 << 40

    def report(
        self,
        user: bytes,
        message_id: bytes,
        *,
        attempt: int = 0,
        key: bytes | None = None,
        device: int = 1,
        body: bytes | None = None,
        times: int = 1,
    ) -> mailbox_pb2.Envelope:
        said = Unencrypted(
            decryption_error=DecryptionError(key, 1, 1).to_bytes(),
            message_id=message_id,
            attempt=attempt,
        )
        self._item += 1
        envelope = mailbox_pb2.Envelope(
            message_id=os.urandom(16),
            sender_account_id=user,
            sender_device_id=device,
            recipient_account_id=self._business.sender.account_id,
            recipient_device_id=1,
            type=8,
            body=plaintext_content(said.SerializeToString()) if body is None else body,
        )
        for _ in range(times):
            self.deliver(envelope)
        return envelope

    def deliver(self, envelope: mailbox_pb2.Envelope) -> None:
        """As on a new stream, where what was not acknowledged comes again."""
        self._gateway.inbound.delivered(
            [mailbox_pb2.Item(item_id=self._item, envelope=envelope)], 1
        )


async def idle(gateway: Gateway, store: GatewayStore, reports: int) -> None:
    """So many reports were committed."""
    while await store.count(SEEN) < reports:
        await settle(1)
    await gateway.lanes.idle()


async def test_nobody_can_ask_for_another_users_message(world: World) -> None:
    store = gateway_store()
    other = await world.device("+4915112345679")
    async with world.gateway(store) as gateway, reading(other) as (reader,):
        business = await world.business(gateway)
        await world.device(USER)  # not connected: the message stays SENT
        message_id = bytes.fromhex(await accepted(business, "k"))
        await business.status(message_id.hex(), api.MESSAGE_STATUS_SENT)
        await reader.device.send_text(business.sender.phone_number, "hi")
        await business.inbound(1)
        Forger(gateway, business).report(reader.device.account_id, message_id)
        await idle(gateway, store, 2)
        assert gateway.counters.resent == 0
        assert not (await record_of(store, message_id.hex())).resent


async def test_repeated_reports_cause_one_resend_and_late_ones_none(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        victim = await world.device(USER)
        message_id = bytes.fromhex(await accepted(business, "k"))
        await business.status(message_id.hex(), api.MESSAGE_STATUS_SENT)
        forger = Forger(gateway, business)
        for _ in range(5):
            forger.report(victim.account_id, message_id)
        await until(lambda: gateway.counters.duplicates == 4)
        await idle(gateway, store, 1)
        forger.report(victim.account_id, message_id)
        await until(lambda: gateway.counters.duplicates == 5)
        forger.report(victim.account_id, message_id, attempt=3)  # of the future: nothing
        await idle(gateway, store, 2)
        assert gateway.counters.resent == 1
        for attempt in (1, 2, 3):
            forger.report(victim.account_id, message_id, attempt=attempt)
            await idle(gateway, store, 2 + attempt)
        assert gateway.counters.resent == 3
        failed = await business.status(message_id.hex(), FAILED)
        assert failed.status.failure.reason == errors_pb2.ERROR_REASON_UNDECRYPTABLE


async def test_a_report_that_comes_again_in_hand_is_safe_only_when_it_is_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay forgets what is acknowledged, whichever delivery of it is."""
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        victim = await world.device(USER)
        message_id = bytes.fromhex(await accepted(business, "k"))
        await business.status(message_id.hex(), api.MESSAGE_STATUS_SENT)
        resent: list[int] = []  # when each delivery was acknowledged

        def acknowledge(item_ids: list[int], epoch: int, failed: list[int]) -> None:
            resent.extend(gateway.counters.resent for _ in item_ids)

        monkeypatch.setattr(gateway.inbound, "_acknowledge", acknowledge)
        forger = Forger(gateway, business)
        envelope = forger.report(victim.account_id, message_id, times=2)
        await settle(1)
        forger.deliver(envelope)
        async with asyncio.timeout(10):
            await until(lambda: len(resent) == 3)
        assert resent == [1, 1, 1]
        assert gateway.counters.duplicates == 2


async def test_a_report_that_comes_again_when_it_is_done_bars_no_later_one(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        victim = await world.device(USER)
        forger = Forger(gateway, business)
        unknown = os.urandom(16)
        envelope = forger.report(victim.account_id, unknown)
        await idle(gateway, store, 1)
        forger.deliver(envelope)
        await until(lambda: gateway.counters.duplicates == 1)
        forger.report(victim.account_id, unknown)
        async with asyncio.timeout(10):
            await idle(gateway, store, 2)


async def test_a_forged_report_gets_nothing_for_another_identity_key(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        victim = await world.device(USER)
        message_id = bytes.fromhex(await accepted(business, "k"))
        await business.status(message_id.hex(), api.MESSAGE_STATUS_SENT)
        mallory = await world.device("+4915112345670")
        fetch = gateway.uplink.calls.fetch_bundles

        async def swapped(targets: Any) -> Any:
            (answer,) = await fetch(targets)
            (theirs,) = await fetch([type(targets[0])(account_id=mallory.account_id)])
            theirs.bundles.account_id = answer.bundles.account_id
            return [theirs]

        gateway._repair._source = Source(swapped)
        key = await newest_ratchet_key(world, victim)
        Forger(gateway, business).report(victim.account_id, message_id, key=key)
        failed = await business.status(message_id.hex(), FAILED)
        assert failed.status.failure.hop == api.HOP_DEVICE
        assert gateway.counters.resent == 0
        assert not any(event.HasField("identity_change") for event in business.seen)


async def test_forged_reports_renew_a_bounded_number_of_sessions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewals_module, "_MOST", 2)
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        victim = await world.device(USER)
        forger = Forger(gateway, business)
        for n in range(4):
            (result,) = await business.send(message(f"k{n}", to=USER))
            message_id = result.accepted.message_id
            await business.status(message_id, api.MESSAGE_STATUS_SENT)
            key = await newest_ratchet_key(world, victim)
            forger.report(victim.account_id, bytes.fromhex(message_id), key=key)
            await idle(gateway, store, n + 1)
            assert gateway.counters.resent == n + 1
        bases = await base_keys(world, victim)
        assert len(bases) == 3  # the first session and two renewals, whatever was forged


async def waiting(world: World, victim: Device) -> list[mailbox_pb2.Envelope]:
    """What lies in a device's mailbox, as the relay can read it."""
    rows = await world.relay.store.scan(MAILBOXES, limit=100)
    found = [mailbox_pb2.Deliveries.FromString(read_row(row.value).delivery) for _, row in rows]
    envelopes = [item.envelope for deliveries in found for item in deliveries.items]
    return [one for one in envelopes if one.recipient_account_id == victim.account_id]


async def newest_ratchet_key(world: World, victim: Device) -> bytes:
    envelope = (await waiting(world, victim))[-1]
    sealed = CiphertextMessage(envelope.type, envelope.body)
    key = DecryptionError.of(sealed, timestamp_ms=1, device_id=1).ratchet_key
    assert key is not None
    return key


async def base_keys(world: World, victim: Device) -> set[bytes]:
    waits = await waiting(world, victim)
    return {PreKeySignalMessage.parse(envelope.body).base_key for envelope in waits}


@pytest.mark.parametrize(
    "body",
    [
        b"\xc0\x80",
        b"noise",
        b"\xc0noise\x80",
        plaintext_content(Unencrypted(message_id=b"m" * 16).SerializeToString()),
        plaintext_content(
            Unencrypted(decryption_error=b"\x10\x01", message_id=b"short").SerializeToString()
        ),
        plaintext_content(
            Unencrypted(
                decryption_error=b"\x10\x01", message_id=b"m" * 16, attempt=4
            ).SerializeToString()
        ),
    ],
)
async def test_a_malformed_report_is_dropped_and_never_answered(world: World, body: bytes) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        Forger(gateway, business).report(b"u" * 16, b"m" * 16, body=body)
        await until(lambda: gateway.counters.malformed_items == 1)
        assert await store.count(OUTBOX) == 0
        assert gateway.counters.asked_again == gateway.counters.undecryptable == 0
