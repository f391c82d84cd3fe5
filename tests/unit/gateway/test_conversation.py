"""The core's main job, against the real relay: messages both ways, statuses, order."""

from __future__ import annotations

from pathlib import Path

from letterlock.v1 import errors_pb2
from letterlock.v1 import messaging_pb2 as api
from letterlockd.sealing.keyring import DAY_MS

from tests.harness.clock import FakeClock
from tests.harness.gateway import World, message, reading, running_world

USER = "+4915112345678"


async def test_a_message_reaches_the_user_and_its_answer_the_business(world: World) -> None:
    device = await world.device(USER)
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        (result,) = await business.send(message("k1", to=USER, text="Your table is ready."))
        accepted = result.accepted
        assert accepted.message_id
        assert not accepted.repeated
        # Before the device reads, since a receipt that overtakes the answer passes SENT over.
        await business.status(accepted.message_id, api.MESSAGE_STATUS_SENT)
        async with reading(device) as (reader,):
            assert await reader.texts(1) == ["Your table is ready."]
            await business.status(accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
            await device.send_read_receipt(reader.business, [reader.messages[0].message_id])
            await business.status(accepted.message_id, api.MESSAGE_STATUS_READ)
            await device.send_text(reader.business, "On my way.")
            (answer,) = await business.inbound(1)
        assert answer.pseudonym.hex() == accepted.user_id
        assert gateway.counters.undecryptable == 0
        state = await gateway.outbound.message(
            business.sender, message_id=None, idempotency_key="k1"
        )
        assert state.status == api.MESSAGE_STATUS_READ
        assert state.user_id == accepted.user_id


async def test_what_waits_for_a_user_who_registers_again_fails_and_may_be_sent_again(
    world: World,
) -> None:
    await world.device(USER)
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        (result,) = await business.send(message("k1", to=USER, text="Where are you?"))
        message_id = result.accepted.message_id
        await business.status(message_id, api.MESSAGE_STATUS_SENT)
        async with reading(await world.device(USER)) as (reader,):
            failed = await business.status(message_id, api.MESSAGE_STATUS_FAILED)
            assert failed.status.failure == api.Failure(
                hop=api.HOP_RELAY, reason=errors_pb2.ERROR_REASON_DEVICES_GONE, retryable=True
            )
            await business.send(message("k2", to=USER, text="Where are you?"))
            assert await reader.texts(1) == ["Where are you?"]


async def test_unknown_recipients_are_refused_alone(world: World) -> None:
    await world.device(USER)
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        results = await business.send(
            message("a", to="+4915199999999"), message("b", to=USER), message("c", user="00" * 16)
        )
        by_key = {result.idempotency_key: result for result in results}
        assert by_key["b"].HasField("accepted")
        for key in ("a", "c"):
            refused = by_key[key].refused
            assert refused.reason == errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT
            assert refused.scope == errors_pb2.REFUSAL_SCOPE_RECIPIENT


async def test_messages_to_one_user_keep_their_order_over_first_contact(world: World) -> None:
    users = [f"+49151123400{n:02d}" for n in range(5)]
    devices = [await world.device(user) for user in users]
    async with world.gateway() as gateway, reading(*devices) as readers:
        business = await world.business(gateway)
        batch = [message(f"{user}-{n}", to=user, text=f"{n}") for n in range(40) for user in users]
        results = await business.send(*batch[:100])
        results += await business.send(*batch[100:])
        assert all(result.HasField("accepted") for result in results)
        for reader in readers:
            assert await reader.texts(40) == [f"{n}" for n in range(40)]


async def test_all_devices_of_a_user_get_a_message(world: World) -> None:
    first = await world.device(USER)
    second = await world.device(of=first)
    async with world.gateway() as gateway, reading(first, second) as readers:
        business = await world.business(gateway)
        await business.send(message("k", to=USER))
        for reader in readers:
            assert await reader.texts(1) == ["hello"]


async def test_a_device_that_joins_later_gets_the_next_message(world: World) -> None:
    first = await world.device(USER)
    async with world.gateway() as gateway, reading(first) as (old,):
        business = await world.business(gateway)
        await business.send(message("k1", to=USER, text="one"))
        await old.texts(1)
        second = await world.device(of=first)
        async with reading(second) as (new,):
            results = await business.send(
                message("k2", to=USER, text="two"), message("k3", to=USER, text="three")
            )
            assert await new.texts(2) == ["two", "three"]
            assert await old.texts(3) == ["one", "two", "three"]
            for result in results:
                await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
        assert gateway.counters.repairs >= 1


async def test_a_removed_device_does_not_hold_messages_up(world: World) -> None:
    first = await world.device(USER)
    second = await world.device(of=first)
    async with world.gateway() as gateway, reading(first) as (reader,):
        business = await world.business(gateway)
        await business.send(message("k1", to=USER, text="one"))
        await first.remove_device(second.device_id)
        (result,) = await business.send(message("k2", to=USER, text="two"))
        assert await reader.texts(2) == ["one", "two"]
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)


async def test_a_new_phone_is_told_as_an_identity_change(world: World) -> None:
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        async with reading(await world.device(USER)) as (old,):
            await business.send(message("k1", to=USER, text="one"))
            await old.texts(1)
        async with reading(await world.device(USER)) as (new,):
            await business.send(message("k2", to=USER, text="two"))
            assert await new.texts(1) == ["two"]
        await business.events(lambda seen: any(event.HasField("identity_change") for event in seen))


async def test_a_user_who_is_offline_gets_it_later(world: World) -> None:
    device = await world.device(USER)
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        (result,) = await business.send(message("k", to=USER))
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_SENT)
        async with reading(device) as (reader,):
            assert await reader.texts(1) == ["hello"]
            await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)


async def test_a_user_writes_first(world: World) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        for n in range(3):
            await reader.device.send_text(business.sender.phone_number, f"{n}")
        events = await business.inbound(3)
        user_id = events[0].pseudonym.hex()
        await business.send(message("k", user=user_id, text="by id"))
        await business.send(message("l", to=USER, text="by number"))
        assert await reader.texts(2) == ["by id", "by number"]
        assert gateway.counters.first_contacts == 0


async def test_typing_comes_as_an_event_with_a_short_life(world: World) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await business.send(message("k", to=USER))
        await reader.texts(1)
        await reader.device.send_typing(reader.business)
        (event,) = await business.inbound(1)
        assert event.inbound.sealed_payload


async def test_a_device_that_never_answers_gets_a_new_session_after_30_days(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    async with running_world(tmp_path, clock) as world, world.gateway() as gateway:
        first = await world.device(USER)
        second = await world.device(of=first)
        async with reading(first, second) as (reader, other):
            business = await world.business(gateway)
            (result,) = await business.send(message("k1", to=USER, text="one"))
            user = result.accepted.user_id
            await other.texts(1)
            await clock.advance(30 * DAY_MS)
            await business.send(message("k2", user=user, text="two"))
            assert (gateway.counters.first_contacts, gateway.counters.repairs) == (1, 0)
            await reader.texts(2)
            await first.send_text(reader.business, "only this phone answers")
            await business.inbound(1)
            await clock.advance(1)
            await business.send(message("k3", user=user, text="three"))
            assert await other.texts(3) == await reader.texts(3) == ["one", "two", "three"]
            assert (gateway.counters.first_contacts, gateway.counters.repairs) == (1, 1)
            await second.send_text(other.business, "here, too")
            await business.inbound(2)
            await clock.advance(31 * DAY_MS)
            await business.send(message("k4", user=user, text="four"))
            assert (await other.texts(4))[3:] == (await reader.texts(4))[3:] == ["four"]
            await clock.advance(31 * DAY_MS)
            await business.send(message("k5", user=user, text="five"))
            assert (await other.texts(5))[4:] == (await reader.texts(5))[4:] == ["five"]
            assert (gateway.counters.first_contacts, gateway.counters.repairs) == (2, 2)
            assert gateway.counters.undecryptable == 0
