"""Idempotency (I8), bounds (I6), and what is refused: through the whole core."""

from __future__ import annotations

import asyncio

import pytest
from letterlock.v1 import errors_pb2
from letterlock.v1 import messaging_pb2 as api
from letterlockd.errors import NotFound
from letterlockd.gateway.settings import GatewaySettings
from letterlockd.model.ids import MessageId

from tests.harness.clock import settle, until
from tests.harness.gateway import Answers, LocalPool, World, gateway_store, message, reading

USER = "+4915112345678"
OTHER = "+4915112345679"


async def test_a_repeat_gives_the_first_outcome_and_sends_nothing(world: World) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        (first,) = await business.send(message("k", to=USER))
        (again,) = await business.send(message("k", to=USER))
        assert again.accepted.repeated
        assert again.accepted.message_id == first.accepted.message_id
        assert again.accepted.user_id == first.accepted.user_id
        assert again.accepted.accept_time == first.accepted.accept_time
        await business.send(message("last", to=USER, text="last"))
        assert await reader.texts(2) == ["hello", "last"]


async def test_a_repeat_while_the_first_is_in_flight(world: World) -> None:
    pool = LocalPool()
    async with world.gateway(pool=pool) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        pool.held = asyncio.Event()
        answers = Answers()
        repeat = message("k", to=USER)
        await gateway.outbound.submit(business.sender, [repeat, repeat], answers)
        await gateway.outbound.submit(business.sender, [repeat], answers)
        pool.held.set()
        results = await answers.wait(3)
        assert sorted(result.accepted.repeated for result in results) == [False, True, True]
        assert len({result.accepted.message_id for result in results}) == 1
        await business.send(message("last", to=USER, text="last"))
        assert await reader.texts(2) == ["hello", "last"]


@pytest.mark.parametrize("in_flight", [True, False])
async def test_a_key_for_another_message_is_refused(world: World, in_flight: bool) -> None:
    pool = LocalPool()
    async with world.gateway(pool=pool) as gateway:
        for user in (USER, OTHER):
            await world.device(user)
        business = await world.business(gateway)
        different = [message("k", to=USER, text="other"), message("k", to=OTHER)]
        if in_flight:
            results = await business.send(message("k", to=USER), *different)
        else:
            results = await business.send(message("k", to=USER))
            results += await business.send(*different)
        reasons = [result.refused.reason for result in results]
        assert sorted(reasons) == [0] + 2 * [errors_pb2.ERROR_REASON_IDEMPOTENCY_KEY_REUSED]


async def test_keys_of_two_numbers_are_apart(world: World) -> None:
    await world.device(USER)
    async with world.gateway() as gateway:
        one = await world.business(gateway)
        two = await world.business(gateway, "+4930123457")
        (first,) = await one.send(message("k", to=USER))
        (second,) = await two.send(message("k", to=USER))
        assert not second.accepted.repeated
        assert first.accepted.user_id != second.accepted.user_id
        message_id = MessageId(bytes.fromhex(first.accepted.message_id))
        with pytest.raises(NotFound):
            await gateway.outbound.message(two.sender, message_id=message_id, idempotency_key=None)


async def test_a_key_is_known_after_a_restart(world: World) -> None:
    await world.device(USER)
    store = gateway_store()
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        (first,) = await business.send(message("k", to=USER))
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        (again,) = await business.send(message("k", to=USER))
        assert again.accepted.repeated
        assert again.accepted.message_id == first.accepted.message_id


async def test_submit_waits_while_too_much_is_in_hand(world: World) -> None:
    await world.device(USER)
    pool = LocalPool()
    settings = GatewaySettings(max_in_hand=4, expiry_seconds=3_600)
    async with world.gateway(pool=pool, settings=settings) as gateway:
        business = await world.business(gateway)
        await business.send(message("warm", to=USER))
        pool.held = asyncio.Event()
        answers = Answers()
        first = [message(f"a{n}", to=USER) for n in range(4)]
        await gateway.outbound.submit(business.sender, first, answers)
        more = asyncio.create_task(
            gateway.outbound.submit(business.sender, [message("b", to=USER)], answers)
        )
        await settle()
        assert not more.done()
        assert gateway.outbound.in_hand == 4
        pool.held.set()
        await more
        await answers.wait(5)
        assert gateway.outbound.in_hand == 0


async def test_a_full_outbox_refuses_with_a_retry_time(world: World) -> None:
    await world.device(USER)
    settings = GatewaySettings(max_outbox=0, expiry_seconds=3_600)
    async with world.gateway(settings=settings) as gateway:
        business = await world.business(gateway)
        (result,) = await business.send(message("k", to=USER))
        assert result.refused.reason == errors_pb2.ERROR_REASON_QUEUE_FULL
        assert result.refused.retry_after.ToMilliseconds() > 0


async def test_a_full_disk_refuses_and_the_next_message_goes(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await business.send(message("k1", to=USER, text="one"))
        store.full = True
        (result,) = await business.send(message("k2", to=USER, text="two"))
        assert result.refused.reason == errors_pb2.ERROR_REASON_STORAGE_FULL
        assert result.refused.retry_after.ToMilliseconds() > 0
        store.full = False
        (result,) = await business.send(message("k2", to=USER, text="two"))
        assert not result.accepted.repeated
        assert await reader.texts(2) == ["one", "two"]


async def test_what_a_user_sends_to_a_full_disk_comes_later(world: World) -> None:
    store = gateway_store()
    async with world.gateway(store) as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await business.send(message("k", to=USER))
        await reader.texts(1)
        refused = store.refused
        store.full = True
        for text in ("a", "b"):
            await reader.device.send_text(reader.business, text)
        await until(lambda: store.refused != refused)
        store.full = False
        events = await business.inbound(2)
        assert [event.inbound.device_id for event in events] == [1, 1]


async def test_draining_refuses_and_ends_when_all_is_answered(world: World) -> None:
    await world.device(USER)
    pool = LocalPool()
    async with world.gateway(pool=pool) as gateway:
        business = await world.business(gateway)
        pool.held = asyncio.Event()
        answers = Answers()
        await gateway.outbound.submit(business.sender, [message("a", to=USER)], answers)
        draining = asyncio.create_task(gateway.drain())
        await settle()
        (refused,) = await business.send(message("b", to=USER))
        assert refused.refused.reason == errors_pb2.ERROR_REASON_DRAINING
        assert not draining.done()
        pool.held.set()
        await draining
        assert answers.results[0].HasField("accepted")


async def test_a_caller_that_is_cancelled_leaves_nothing_in_hand(world: World) -> None:
    await world.device(USER)
    pool = LocalPool()
    settings = GatewaySettings(max_in_hand=1, expiry_seconds=3_600)
    async with world.gateway(pool=pool, settings=settings) as gateway:
        business = await world.business(gateway)
        pool.held = asyncio.Event()
        answers = Answers()
        await gateway.outbound.submit(business.sender, [message("a", to=USER)], answers)
        waiting = asyncio.create_task(
            gateway.outbound.submit(business.sender, [message("b", to=USER)], answers)
        )
        await settle()
        waiting.cancel()
        pool.held.set()
        await answers.wait(1)
        assert gateway.outbound.in_hand == 0
        assert [result.idempotency_key for result in answers.results] == ["a"]


async def test_the_state_of_no_message_is_not_found(world: World) -> None:
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        for key, message_id in (("no such key", None), (None, MessageId(b"m" * 16))):
            with pytest.raises(NotFound):
                await gateway.outbound.message(
                    business.sender, message_id=message_id, idempotency_key=key
                )


async def test_the_time_to_live_is_held_to_the_retention(world: World) -> None:
    await world.device(USER)
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        await business.send(
            message("short", to=USER, ttl_s=60), message("long", to=USER, ttl_s=10**6)
        )
        lives = {}
        for key in ("short", "long"):
            state: api.Message = await gateway.outbound.message(
                business.sender, message_id=None, idempotency_key=key
            )
            lives[key] = state.expire_time.seconds - state.accept_time.seconds
        assert lives == {"short": 60, "long": business.sender.retention_ms // 1000}
