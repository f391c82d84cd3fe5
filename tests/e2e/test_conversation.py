"""Conversations between a business and its users, through all real processes."""

import asyncio
from collections.abc import Callable

import pytest
from letterlock import OutgoingMessage, Start
from letterlock.content.v1 import content_pb2
from letterlock.device.events import IdentityChanged, Receipt
from letterlock.errors import InvalidRequest

from tests.harness.people import (
    ACCEPTED,
    DELIVERED,
    EXPIRED,
    READ,
    SENT,
    Shop,
    new_device,
    next_event,
    next_message,
    receiving,
    register,
    user,
)
from tests.harness.supervised import Daemon

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="session")]

Numbers = Callable[[], str]


async def test_both_ways_and_by_user_id(shared: Daemon, shop: Shop, number: Numbers) -> None:
    ana_number = number()
    async with (
        shop.client() as business,
        receiving(business) as events,
        user(shared, ana_number) as ana,
    ):
        accepted = await business.send(to=ana_number, text="Good morning")
        got = await next_message(ana)
        assert (got.text, got.message_id.hex()) == ("Good morning", accepted.message_id)
        for n in range(3):
            await ana.send_text(got.sender, f"answer {n}")
        await events.until(lambda: len(events.texts) == 3)
        assert events.texts == [(accepted.user_id, f"answer {n}") for n in range(3)]
        heard = next(event.message for event in events.events if event.message is not None)
        assert (heard.phone_number, heard.device_id) == (ana_number, 1)
        again = await business.send(to=accepted.user_id, text="By id")
        assert again.user_id == accepted.user_id
        assert (await next_message(ana)).text == "By id"


async def test_a_user_writes_first(shared: Daemon, shop: Shop, number: Numbers) -> None:
    async with (
        shop.client() as business,
        receiving(business) as events,
        user(shared, number()) as ana,
    ):
        await ana.send_text(shop.number, "Are you open?")
        await events.until(lambda: len(events.texts) == 1)
        ((user_id, text),) = events.texts
        assert text == "Are you open?"
        receipt = await next_event(ana)
        assert isinstance(receipt, Receipt)
        assert receipt.kind == "DELIVERED"
        await business.send(to=user_id, text="Until six")
        assert (await next_message(ana)).text == "Until six"


async def test_statuses_in_order_for_a_user_who_is_away_first(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    ben_number = number()
    async with (
        shop.client() as business,
        receiving(business) as events,
        user(shared, ben_number, connect=False) as ben,
    ):
        accepted = await business.send(to=ben_number, text="Ready", caller_tag=b"order 4711")
        message_id = accepted.message_id
        await events.until(events.reached(message_id, SENT))
        shown = await business.message(message_id)
        assert (shown.status, shown.caller_tag) == (SENT, b"order 4711")
        assert shown.user_id == accepted.user_id
        await ben.connect()
        message = await next_message(ben)
        await events.until(events.reached(message_id, DELIVERED))
        assert (await business.message(message_id)).status == DELIVERED
        await ben.send_read_receipt(message.sender, [message.message_id])
        await events.until(events.reached(message_id, READ))
        by_key = await business.message(idempotency_key=shown.idempotency_key)
        assert (by_key.message_id, by_key.status) == (message_id, READ)
        assert by_key.accept_time == accepted.accept_time
        assert events.statuses[message_id] == [SENT, DELIVERED, READ]
        tags = {event.status.caller_tag for event in events.events if event.status is not None}
        assert tags == {b"order 4711"}


async def test_a_message_nobody_takes_expires(shared: Daemon, shop: Shop, number: Numbers) -> None:
    async with (
        shop.client() as business,
        receiving(business) as events,
        user(shared, (away := number()), connect=False) as ben,
    ):
        lost = await business.send(to=away, text="Only now", time_to_live=1.0)
        kept = await business.send(to=away, text="Any time")
        await events.until(events.reached(lost.message_id, EXPIRED))
        # A second is little where the machine is busy: then it never came to be SENT.
        assert events.statuses[lost.message_id] in ([SENT, EXPIRED], [EXPIRED])
        await events.until(events.reached(kept.message_id, SENT))
        assert (await business.message(kept.message_id)).status == SENT
        await ben.connect()
        assert (await next_message(ben)).text == "Any time"
        await events.until(events.reached(kept.message_id, DELIVERED))


async def test_every_kind_of_content_both_ways(shared: Daemon, shop: Shop, number: Numbers) -> None:
    reaction_to = content_pb2.Reaction(message_id=bytes(range(16)), emoji="👍🏽")
    contents = [
        content_pb2.Content(text=content_pb2.Text(body="ä" * 8_192)),
        content_pb2.Content(reaction=reaction_to),
        content_pb2.Content(read_receipt=content_pb2.ReadReceipt(message_ids=[bytes(16)])),
        content_pb2.Content(typing=content_pb2.Typing(started=True)),
    ]
    async with (
        shop.client() as business,
        receiving(business) as events,
        user(shared, (ana_number := number())) as ana,
    ):
        for content in contents:
            await business.send(to=ana_number, content=content)
            assert (await next_message(ana)).content == content
        for content in contents:
            await ana.send(shop.number, content, ephemeral=content.HasField("typing"))
        heard = [content for content in contents if not content.HasField("read_receipt")]
        await events.until(lambda: len(events.contents) == len(heard))
        assert events.contents == heard  # a read receipt is told as a status


async def test_media_is_refused_by_name(shared: Daemon, shop: Shop, number: Numbers) -> None:
    content = content_pb2.Content(media=content_pb2.Media(locator="https://example.org/x"))
    async with shop.client() as business, user(shared, (ana_number := number())):
        with pytest.raises(InvalidRequest) as caught:
            await business.send(to=ana_number, content=content)
    assert caught.value.reason == "UNSUPPORTED_CONTENT"


async def test_every_device_of_a_user_gets_it_and_may_answer(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with (
        shop.client() as business,
        receiving(business) as events,
        user(shared, (ana_number := number())) as phone,
        new_device(shared) as tablet,
    ):
        await tablet.link(await phone.create_link())
        await tablet.connect()
        accepted = await business.send(to=ana_number, text="To both")
        on_phone, on_tablet = await next_message(phone), await next_message(tablet)
        assert {on_phone.text, on_tablet.text} == {"To both"}
        assert on_phone.message_id == on_tablet.message_id
        await tablet.send_text(shop.number, "From the tablet")
        await phone.send_text(shop.number, "From the phone")
        await events.until(lambda: len(events.texts) == 2)
        assert sorted(events.texts) == [
            (accepted.user_id, "From the phone"),
            (accepted.user_id, "From the tablet"),
        ]
        devices = {e.message.device_id for e in events.events if e.message is not None}
        assert devices == {phone.device_id, tablet.device_id}


async def test_a_device_that_joins_and_leaves_between_messages(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with (
        shop.client() as business,
        receiving(business) as events,
        user(shared, (ana_number := number())) as phone,
    ):
        await business.send(to=ana_number, text="To one")
        assert (await next_message(phone)).text == "To one"
        async with new_device(shared) as tablet:
            await tablet.link(await phone.create_link())
            await tablet.connect()
            await business.send(to=ana_number, text="To two")
            assert (await next_message(tablet)).text == "To two"
            assert (await next_message(phone)).text == "To two"
            await phone.remove_device(tablet.device_id)
        accepted = await business.send(to=ana_number, text="To one again")
        assert (await next_message(phone)).text == "To one again"
        await events.until(events.reached(accepted.message_id, DELIVERED))
        assert len(events.statuses) == 3
        assert all(map(events.is_delivered, events.statuses))


async def test_a_new_identity_key_is_told_and_messages_go_on(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    ana_number = number()
    async with shop.client() as business, receiving(business) as events:
        async with user(shared, ana_number) as old_phone:
            first = await business.send(to=ana_number, text="To the old phone")
            await next_message(old_phone)
        async with user(shared, ana_number) as new_phone:
            second = await business.send(to=ana_number, text="To the new phone")
            assert (await next_message(new_phone)).text == "To the new phone"
            await events.until(lambda: "identity_change" in events.kinds())
            changes = [e.identity_change for e in events.events if e.kind == "identity_change"]
            assert [change.user_id for change in changes if change] == [second.user_id]
            assert second.user_id == first.user_id
            await new_phone.send_text(shop.number, "It is me")
            await events.until(lambda: (first.user_id, "It is me") in events.texts)


async def test_a_user_with_a_new_identity_key_writes_first(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    ana_number = number()
    async with shop.client() as business, receiving(business) as events:
        async with user(shared, ana_number) as old_phone:
            await old_phone.send_text(shop.number, "Hello")
            await events.until(lambda: len(events.texts) == 1)
        async with user(shared, ana_number) as new_phone:
            await new_phone.send_text(shop.number, "Hello again")
            await events.until(lambda: len(events.texts) == 2)
            await events.until(lambda: "identity_change" in events.kinds())
            (first, _), (second, _) = events.texts
            assert first == second
            await business.send(to=second, text="Hello, new phone")
            assert (await next_message(new_phone)).text == "Hello, new phone"


async def test_users_without_one_time_keys_get_the_last_resort_path(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with (
        shop.client() as business,
        receiving(business) as events,
        user(shared, (ana_number := number()), one_time_pre_keys=0) as ana,
    ):
        accepted = await business.send(to=ana_number, text="No key left")
        message = await next_message(ana)
        assert message.text == "No key left"
        await ana.send_text(message.sender, "And back")
        await events.until(lambda: events.texts == [(accepted.user_id, "And back")])


async def test_the_same_key_is_sent_once_and_another_message_under_it_is_refused(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with shop.client() as business, user(shared, (ana_number := number())) as ana:
        first = await business.send(to=ana_number, text="Once", idempotency_key="order 1")
        again = await business.send(to=ana_number, text="Once", idempotency_key="order 1")
        assert not first.repeated
        assert again.repeated
        assert (again.message_id, again.accept_time) == (first.message_id, first.accept_time)
        with pytest.raises(InvalidRequest) as caught:
            await business.send(to=ana_number, text="Twice", idempotency_key="order 1")
        assert caught.value.reason == "IDEMPOTENCY_KEY_REUSED"
        await business.send(to=ana_number, text="End")
        assert [(await next_message(ana)).text for _ in range(2)] == ["Once", "End"]


async def test_a_stream_may_hold_the_same_key_twice(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with shop.client() as business, user(shared, (ana_number := number())) as ana:
        messages = [OutgoingMessage(ana_number, "Once", idempotency_key="k") for _ in range(2)]
        one, two = business.send_many(messages[:1]), business.send_many(messages[1:])
        results = [r async for r in one] + [r async for r in two]
        accepted = [result.accepted for result in results]
        assert len({a.message_id for a in accepted if a is not None}) == 1
        await business.send(to=ana_number, text="End")
        assert [(await next_message(ana)).text for _ in range(2)] == ["Once", "End"]


async def test_events_wait_for_the_business_and_come_again_until_acknowledged(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with shop.client() as business, user(shared, number()) as ana:
        for n in range(5):
            await ana.send_text(shop.number, f"{n}")
        async with business.receive(window=2) as events:
            taken = [await anext(events), await anext(events)]
            taken[0].ack()
            third = await anext(events)
        assert [e.text for e in (*taken, third)] == ["0", "1", "2"]
        async with business.receive() as events:
            rest = [await anext(events) for _ in range(4)]
            assert [e.text for e in rest] == ["1", "2", "3", "4"]
            assert [e.redelivered for e in rest] == [True, True, False, False]
            for event in rest:
                event.ack()
        async with business.receive() as events:
            assert [event async for event in events.until_caught_up()] == []


async def test_a_receiver_that_wants_news_alone(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    async with shop.client() as business, user(shared, number()) as ana:
        await ana.send_text(shop.number, "before")
        async with business.receive() as events:
            assert (await anext(events)).text == "before"
        async with business.receive(start=Start.NEW) as events:
            assert [event async for event in events.until_caught_up()] == []
            await ana.send_text(shop.number, "after")
            async with asyncio.timeout(30):
                assert (await anext(events)).text == "after"


async def test_accepted_is_the_first_status(shared: Daemon, shop: Shop, number: Numbers) -> None:
    """Before the relay has answered, and after: a caller sees no other order."""
    async with shop.client() as business, user(shared, (ana_number := number()), connect=False):
        accepted = await business.send(to=ana_number, text="Hello")
        assert (await business.message(accepted.message_id)).status in {ACCEPTED, SENT}


async def test_a_device_hears_of_a_business_that_writes_under_a_new_key(
    shared: Daemon, shop: Shop, number: Numbers
) -> None:
    """The number of another account taken over: our device tells its owner."""
    friend_number = number()
    async with user(shared, number()) as ana:
        async with user(shared, friend_number) as friend:
            await ana.send_text(friend_number, "Hi")
            assert (await next_message(friend)).text == "Hi"
        fresh = new_device(shared)
        async with fresh:
            await register(shared, fresh, friend_number)
            await fresh.connect()
            await ana.send_text(friend_number, "Hi again")
            assert (await next_message(fresh)).text == "Hi again"
            event = await next_event(ana)
            while isinstance(event, Receipt):
                event = await next_event(ana)
            assert isinstance(event, IdentityChanged)
