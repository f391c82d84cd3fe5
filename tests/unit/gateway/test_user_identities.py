"""Safety numbers, and what happens to messages while a changed identity key is not confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from letterlock.device.device import Device
from letterlock.v1 import errors_pb2
from letterlock.v1 import messaging_pb2 as api
from letterlockd import failpoints
from letterlockd.errors import Conflict, Forbidden, InvalidField, NotFound
from letterlockd.gateway import tables
from letterlockd.gateway.room import Gateway
from letterlockd.gateway.settings import GatewaySettings
from letterlockd.model.ids import Pseudonym
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.records.v1.inbox_pb2 import StoredEvent

from tests.harness.clock import FakeClock, until
from tests.harness.gateway import (
    Business,
    GatewayStore,
    LocalPool,
    World,
    gateway_store,
    message,
    reading,
    running_world,
)

USER, OTHER = "+4915112345678", "+4915112345679"


class Shop:
    """A business that holds, and one of its users."""

    def __init__(self, business: Business, gateway: Gateway) -> None:
        self.business = business
        self.gateway = gateway
        self.user = Pseudonym(b"")

    async def send(self, text: str, ttl_s: int = 0) -> api.SendResult:
        sent = message(text, to=USER, text=text, ttl_s=ttl_s)
        (result,) = await self.business.send(sent)
        return result

    async def safety_number(self) -> jobs.IdentityChecked:
        return await self.gateway.user_identities.safety_number(self.business.sender, self.user)

    async def confirm(self, digits: str) -> int:
        checked = jobs.CheckIdentity(digits=digits)
        return await self.gateway.user_identities.confirm(self.business.sender, self.user, checked)

    async def held(self, count: int) -> None:
        """Wait until so many messages are held."""
        await until(lambda: self.gateway.held.count == count)

    async def changes(self, count: int) -> list[StoredEvent]:
        def found(events: list[StoredEvent]) -> list[StoredEvent]:
            return [event for event in events if event.HasField("identity_change")]

        return found(await self.business.events(lambda seen: len(found(seen)) >= count))


async def open_shop(world: World, gateway: Gateway, *, holds: bool = True) -> Shop:
    return Shop(await world.business(gateway, holds=holds), gateway)


async def greet(world: World, shop: Shop) -> Device:
    """A user who has got a message."""
    device = await world.device(USER)
    async with reading(device) as (reader,):
        result = await shop.send("first")
        assert await reader.texts(1) == ["first"]
    shop.user = Pseudonym(bytes.fromhex(result.accepted.user_id))
    return device


async def test_both_ends_see_the_same_safety_number(world: World) -> None:
    async with world.gateway() as gateway:
        shop = await open_shop(world, gateway)
        device = await greet(world, shop)
        ours = await shop.safety_number()
        theirs = device.safety_number(shop.business.sender.account_id)
        assert ours.digits == theirs.displayable
        assert (len(ours.digits), ours.unconfirmed) == (60, False)
        assert theirs.compare(ours.scannable)
        scanned = jobs.CheckIdentity(scanned=theirs.scannable)
        confirm = gateway.user_identities.confirm
        assert await confirm(shop.business.sender, shop.user, scanned) == 0
        by_number = await gateway.user_identities.find(shop.business.sender, USER)
        assert by_number == shop.user


async def test_a_new_phone_gets_its_messages_after_the_confirmation(world: World) -> None:
    async with world.gateway() as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        before = await shop.safety_number()
        new_phone = await world.device(USER)
        texts = [f"{n}" for n in range(5)]
        results = await shop.business.send(*(message(t, to=USER, text=t) for t in texts))
        await shop.held(5)
        assert gateway.outbox.count == 0
        (change,) = await shop.changes(1)
        assert change.identity_change.held
        refused = (await shop.send("refused")).refused
        assert refused.reason == errors_pb2.ERROR_REASON_IDENTITY_UNCONFIRMED
        assert refused.scope == errors_pb2.REFUSAL_SCOPE_RECIPIENT
        number = await shop.safety_number()
        assert number.unconfirmed
        assert number.digits != before.digits
        async with reading(new_phone) as (reader,):
            assert await shop.confirm(number.digits) == 5
            assert (await shop.send("after")).HasField("accepted")
            assert await reader.texts(6) == [*texts, "after"]
            for result in results:
                await shop.business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
            theirs = new_phone.safety_number(shop.business.sender.account_id)
            assert theirs.displayable == number.digits
        assert gateway.held.count == 0
        assert not (await shop.safety_number()).unconfirmed
        assert await shop.confirm(number.digits) == 0


async def test_the_number_that_was_checked_before_another_change_confirms_nothing(
    world: World,
) -> None:
    async with world.gateway() as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        await world.device(USER)
        await shop.send("held")
        await shop.held(1)
        checked = (await shop.safety_number()).digits
        third = await world.device(USER)
        async with reading(third) as (reader,):
            await reader.device.send_text(shop.business.sender.phone_number, "Me again")
            await shop.changes(2)
            with pytest.raises(Conflict) as caught:
                await shop.confirm(checked)
            assert caught.value.reason == "SAFETY_NUMBER_MISMATCH"
            assert gateway.held.count == 1
            assert (await shop.send("no")).HasField("refused")
            assert await shop.confirm((await shop.safety_number()).digits) == 1
            assert await reader.texts(1) == ["held"]


async def test_a_change_between_check_and_release_keeps_the_rest_held(world: World) -> None:
    async with world.gateway() as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        await world.device(USER)
        await shop.send("held")
        await shop.held(1)
        number = await shop.safety_number()
        identities = gateway.user_identities
        check = identities._check

        async def then_another_phone(*given: object) -> jobs.IdentityChecked:
            checked = await check(*given)  # type: ignore[arg-type]
            async with reading(await world.device(USER)) as (reader,):
                await reader.device.send_text(shop.business.sender.phone_number, "Not me")
                await shop.changes(2)
            return checked

        identities._check = then_another_phone  # type: ignore[method-assign, assignment]
        with pytest.raises(Conflict) as caught:
            await shop.confirm(number.digits)
        assert caught.value.reason == "SAFETY_NUMBER_MISMATCH"
        assert gateway.held.count == 1
        assert (await shop.send("no")).HasField("refused")


async def test_what_a_user_writes_under_a_new_key_is_given_and_marked(world: World) -> None:
    async with world.gateway() as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        phone = await world.device(USER)
        first = await shop.send("unread")
        await shop.held(1)
        async with reading(phone) as (reader,):
            await reader.device.send_text(shop.business.sender.phone_number, "New phone")
            (told,) = await shop.business.inbound(1)
            assert told.inbound.identity_unconfirmed
            message_id = bytes.fromhex(first.accepted.message_id)
            account = shop.business.sender.account_id
            await reader.device.send_read_receipt(account, [message_id])
            await reader.device.send_text(account, "Read")
            await shop.business.inbound(2)
            assert gateway.counters.unconfirmed_receipts == 1
            state = await gateway.outbound.message(
                shop.business.sender, message_id=None, idempotency_key="unread"
            )
            assert state.status == api.MESSAGE_STATUS_ACCEPTED
            await shop.confirm((await shop.safety_number()).digits)
            await reader.texts(1)
            await reader.device.send_text(account, "Confirmed")
            assert not (await shop.business.inbound(3))[2].inbound.identity_unconfirmed


async def test_other_users_are_served_while_one_is_held(world: World) -> None:
    async with world.gateway(settings=GatewaySettings(max_unanswered=4)) as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        await world.device(USER)
        for n in range(10):
            await shop.business.send(message(f"held {n}", to=USER))
        async with reading(await world.device(OTHER)) as (reader,):
            results = await shop.business.send(*(message(f"{n}", to=OTHER) for n in range(10)))
            assert all(result.HasField("accepted") for result in results)
            await reader.texts(10)


async def test_a_held_message_expires_and_is_told(tmp_path: Path) -> None:
    clock = FakeClock()
    async with running_world(tmp_path, clock) as world, world.gateway() as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        await world.device(USER)
        short, long = await shop.send("short", ttl_s=60), await shop.send("long")
        await shop.held(2)
        await clock.advance(120_000)
        await gateway.expiry.look()
        told = await shop.business.status(short.accepted.message_id, api.MESSAGE_STATUS_EXPIRED)
        assert told.status.failure.hop == api.HOP_GATEWAY
        assert gateway.held.count == 1
        assert await shop.confirm((await shop.safety_number()).digits) == 1
        sent = asyncio.create_task(
            shop.business.status(long.accepted.message_id, api.MESSAGE_STATUS_SENT)
        )
        while not sent.done():  # it waits a moment for DELIVERED, which does not come
            await clock.advance(100)
        await sent


async def test_what_is_held_is_bounded(world: World) -> None:
    async with world.gateway(settings=GatewaySettings(max_held=2)) as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        await world.device(USER)
        results = await shop.business.send(*(message(f"{n}", to=USER) for n in range(2)))
        await shop.held(2)
        assert gateway.held.is_full
        assert all(result.HasField("accepted") for result in results)


async def test_beyond_the_bound_a_message_fails(world: World) -> None:
    async with world.gateway(settings=GatewaySettings(max_held=0)) as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        await world.device(USER)
        result = await shop.send("too much")
        told = await shop.business.status(result.accepted.message_id, api.MESSAGE_STATUS_FAILED)
        failure = told.status.failure
        assert failure.reason == errors_pb2.ERROR_REASON_IDENTITY_UNCONFIRMED
        assert (failure.hop, failure.retryable) == (api.HOP_GATEWAY, True)
        assert (gateway.held.count, gateway.outbox.count) == (0, 0)


async def test_the_policy_governs_the_changes_that_are_seen_from_then_on(world: World) -> None:
    async with world.gateway() as gateway:
        shop = await open_shop(world, gateway, holds=False)
        await greet(world, shop)
        async with reading(await world.device(USER)) as (reader,):
            await shop.send("accepted and told")
            await reader.texts(1)
        (change,) = await shop.changes(1)
        assert not change.identity_change.held
        world.set_policy(shop.business, holds=True)
        assert (await shop.send("still fine")).HasField("accepted")
        phone = await world.device(USER)
        await shop.send("held")
        await shop.held(1)
        world.set_policy(shop.business, holds=False)
        assert (await shop.send("still held")).HasField("refused")
        async with reading(phone) as (reader,):
            await shop.confirm((await shop.safety_number()).digits)
            assert await reader.texts(1) == ["held"]


@pytest.fixture
async def store() -> AsyncIterator[GatewayStore]:
    yield gateway_store()
    failpoints.configure("")


async def hold_two(world: World, store: GatewayStore) -> Shop:
    async with world.gateway(store) as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        await world.device(USER)
        await shop.send("one")
        await shop.send("two")
        await shop.held(2)
    return shop


async def test_a_restart_keeps_the_hold(world: World, store: GatewayStore) -> None:
    before = await hold_two(world, store)
    async with world.gateway(store) as gateway:
        shop = await open_shop(world, gateway)
        shop.user = before.user
        assert gateway.held.count == 2
        assert (await shop.send("three")).HasField("refused")
        assert await shop.confirm((await shop.safety_number()).digits) == 2


@pytest.mark.parametrize(
    ("point", "passage"),
    [
        ("gateway.release.before_commit", 1),
        ("gateway.release.after_commit", 1),
        ("gateway.identity.before_commit", 2),
        ("gateway.identity.after_commit", 2),
    ],
)
async def test_a_crash_in_a_confirmation_loses_nothing_and_sends_nothing_twice(
    world: World, store: GatewayStore, point: str, passage: int
) -> None:
    before = await hold_two(world, store)

    async def crash() -> None:
        async with world.gateway(store) as gateway:
            shop = await open_shop(world, gateway)
            shop.user = before.user
            number = await shop.safety_number()
            failpoints.configure(f"{point}=error@{passage}")
            await shop.confirm(number.digits)

    with pytest.RaisesGroup(failpoints.InjectedFault, flatten_subgroups=True):
        await crash()
    failpoints.configure("")
    async with world.gateway(store) as gateway, reading(world.devices[-1]) as (reader,):
        shop = await open_shop(world, gateway)
        shop.user = before.user
        await shop.confirm((await shop.safety_number()).digits)
        assert (await shop.send("three")).HasField("accepted")
        assert await reader.texts(3) == ["one", "two", "three"]
        assert await store.count(tables.HELD) == 0


@pytest.mark.parametrize("point", ["gateway.repair.before_commit", "gateway.repair.after_commit"])
async def test_a_crash_when_a_message_is_set_aside(
    world: World, store: GatewayStore, point: str
) -> None:
    async with world.gateway(store) as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        phone = await world.device(USER)
    user = shop.user

    async def crash() -> None:
        async with world.gateway(store) as gateway:
            shop = await open_shop(world, gateway)
            failpoints.configure(f"{point}=error")
            await shop.send("one")
            await asyncio.Event().wait()

    with pytest.RaisesGroup(failpoints.InjectedFault, flatten_subgroups=True):
        await crash()
    failpoints.configure("")
    async with world.gateway(store) as gateway, reading(phone) as (reader,):
        shop = await open_shop(world, gateway)
        shop.user = user
        await shop.held(1)
        assert await shop.confirm((await shop.safety_number()).digits) == 1
        assert (await shop.send("two")).HasField("accepted")
        assert await reader.texts(2) == ["one", "two"]


async def test_two_confirmations_at_a_time_release_each_message_once(world: World) -> None:
    async with world.gateway() as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        phone = await world.device(USER)
        for n in range(3):
            await shop.send(f"{n}")
        await shop.held(3)
        digits = (await shop.safety_number()).digits
        released = await asyncio.gather(*(shop.confirm(digits) for _ in range(3)))
        assert sum(released) == 3
        assert gateway.held.count == 0
        async with reading(phone) as (reader,):
            assert await reader.texts(3) == ["0", "1", "2"]


async def test_without_a_session_a_released_message_gets_fresh_bundles(world: World) -> None:
    pool = LocalPool()
    async with world.gateway(pool=pool) as gateway:
        shop = await open_shop(world, gateway)
        await greet(world, shop)
        phone = await world.device(USER)
        await shop.send("held")
        await shop.held(1)
        digits = (await shop.safety_number()).digits

        def forget_sessions(job: jobs.Job, result: jobs.JobResult) -> None:
            for task, done in zip(job.tasks, result.results, strict=True):
                for asked, told in zip(task.steps, done.steps, strict=True):
                    if asked.encrypt.confirmed_identity_key:
                        done.sealed_record = b""
                        told.failure.name = "SessionNotFound"

        pool.twist = forget_sessions
        assert await shop.confirm(digits) == 1
        async with reading(phone) as (reader,):
            assert await reader.texts(1) == ["held"]
        assert gateway.counters.repairs == 2


async def test_nothing_stays_held_for_a_number_that_is_removed(
    world: World, store: GatewayStore
) -> None:
    before = await hold_two(world, store)
    async with world.gateway(store) as gateway:
        account = before.business.sender.account_id
        await gateway.removal.remove_number(account, before.business.sender.phone_number)
        assert gateway.held.count == 0
        assert await store.count(tables.HELD) == 0
        with pytest.raises(Forbidden):
            await gateway.user_identities.safety_number(before.business.sender, before.user)


async def test_unknown_users_and_what_was_never_scanned(world: World) -> None:
    async with world.gateway() as gateway:
        shop = await open_shop(world, gateway)
        device = await greet(world, shop)
        identities, sender = gateway.user_identities, shop.business.sender
        stranger = Pseudonym(bytes(16))
        with pytest.raises(NotFound):
            await identities.safety_number(sender, stranger)
        with pytest.raises(NotFound):
            await identities.confirm(sender, stranger, jobs.CheckIdentity(digits="0" * 60))
        with pytest.raises(NotFound):
            await identities.find(sender, OTHER)
        theirs = device.safety_number(sender.account_id).scannable
        for scanned in (b"\xff", b"\x08\x01" + theirs[2:]):
            with pytest.raises(InvalidField) as bad:
                await identities.confirm(sender, shop.user, jobs.CheckIdentity(scanned=scanned))
            assert bad.value.field == "scanned"
        ours = (await shop.safety_number()).scannable
        with pytest.raises(Conflict):
            await identities.confirm(sender, shop.user, jobs.CheckIdentity(scanned=ours))
