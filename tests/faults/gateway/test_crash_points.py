"""The gateway dies before and after each of its commits, starts again on the same store, and the
business and the user repeat what was not answered: nothing is lost, nothing comes twice.

The crash is a failpoint that raises: no handler of the core stops it, the tasks end where they
are, and only what the store had committed is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from letterlock.v1 import messaging_pb2 as api
from letterlockd import failpoints
from letterlockd.clock import SystemClock

from tests.harness.gateway import (
    Business,
    GatewayStore,
    World,
    gateway_store,
    message,
    reading,
    running_world,
)

USER = "+4915112345678"
TEXTS = ["one", "two", "three"]
POINTS = (
    "gateway.outbound.before_commit",
    "gateway.outbound.after_commit",
    "gateway.sent.before_commit",
    "gateway.sent.after_commit",
    "gateway.inbound.before_commit",
    "gateway.inbound.after_commit",
    "gateway.inbound.after_ack",
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path, SystemClock()) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_failpoints_after() -> Iterator[None]:
    yield
    failpoints.configure("")


async def prepare(world: World, store: GatewayStore) -> None:
    """A conversation that both sides know, so that every crash comes in its middle."""
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        (result,) = await business.send(message("first", to=USER, text="first"))
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)


async def send_for_ever(world: World, store: GatewayStore, point: str) -> None:
    async with world.gateway(store) as gateway:
        business = await world.business(gateway)
        failpoints.configure(f"{point}=error")
        for text in TEXTS:
            await business.send(message(text, to=USER, text=text))
        await asyncio.Event().wait()


async def send_until_the_crash(world: World, store: GatewayStore, point: str) -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        await send_for_ever(world, store, point)
    assert raised.group_contains(failpoints.InjectedFault)
    failpoints.configure("")


async def delivered(business: Business, results: list[api.SendResult]) -> None:
    for result in results:
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)


@pytest.mark.parametrize("point", POINTS)
async def test_nothing_is_lost_and_nothing_comes_twice(world: World, point: str) -> None:
    store = gateway_store()
    async with reading(await world.device(USER)) as (reader,):
        await prepare(world, store)
        account = reader.business
        # Both ways at once, so that every point is passed whichever flow it is in.
        writing = asyncio.create_task(write(reader.device.send_text, account))
        await send_until_the_crash(world, store, point)
        async with world.gateway(store) as gateway:
            business = await world.business(gateway)
            results = []
            for text in TEXTS:
                results += await business.send(message(text, to=USER, text=text))
            await writing
            assert await reader.texts(1 + len(TEXTS)) == ["first", *TEXTS]
            await delivered(business, results)
            events = await business.inbound(len(TEXTS))
            await business.send(message("last", to=USER, text="last"))
            assert await reader.texts(2 + len(TEXTS)) == ["first", *TEXTS, "last"]
            inbound = [event.inbound.message_id for event in events]
            assert len(inbound) == len(set(inbound)) == len(TEXTS)
            assert gateway.counters.undecryptable == 0
            assert not any(event.HasField("undecryptable") for event in business.seen)


async def write(send: object, account: bytes) -> None:
    for text in TEXTS:
        await send(account, text)  # type: ignore[operator]
