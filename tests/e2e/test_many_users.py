"""Two hundred users at once: first contacts in both directions, and the stock of one-time keys."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from letterlock import Device, OutgoingMessage
from letterlock.channel import bearer
from letterlock.relay.v1 import keys_pb2, keys_pb2_grpc

from tests.harness.people import DELIVERED, next_message, open_shop, receiving, user
from tests.harness.supervised import Daemon, daemon

pytestmark = pytest.mark.e2e

USERS = 200
AT_A_TIME = 20
SHOP = "+15580000000"
NUMBERS = [f"+1558{n:07d}" for n in range(1, USERS + 1)]


async def _joined(stack: AsyncExitStack, running: Daemon) -> dict[str, Device]:
    places = asyncio.Semaphore(AT_A_TIME)
    channel = await stack.enter_async_context(running.channel("relay"))

    async def join(number: str) -> Device:
        async with places:
            context = user(running, number, channel=channel, one_time_pre_keys=1)
            return await stack.enter_async_context(context)

    return dict(zip(NUMBERS, await asyncio.gather(*map(join, NUMBERS)), strict=True))


async def test_all_write_first_and_keys_are_made_anew(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running, AsyncExitStack() as stack:
        shop = await open_shop(running, SHOP)
        users = await _joined(stack, running)
        business = await stack.enter_async_context(shop.client())
        events = await stack.enter_async_context(receiving(business))
        left = await stack.enter_async_context(stock(running))
        assert await left.count() == (99, 99)
        await asyncio.gather(*(u.send_text(SHOP, number) for number, u in users.items()))
        await events.until(lambda: len(events.texts) == USERS)
        assert sorted(text for _, text in events.texts) == NUMBERS
        assert len({user_id for user_id, _ in events.texts}) == USERS
        assert events.kinds() == {"message"}
        await left.until_filled()


async def test_a_business_writes_to_all_first(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running, AsyncExitStack() as stack:
        shop = await open_shop(running, SHOP)
        users = await _joined(stack, running)
        business = await stack.enter_async_context(shop.client())
        events = await stack.enter_async_context(receiving(business))
        offers = [OutgoingMessage(number, f"offer to {number}") for number in NUMBERS]
        results = [result async for result in business.send_many(offers)]
        assert [result.error for result in results] == [None] * USERS
        for number, device in users.items():
            assert (await next_message(device)).text == f"offer to {number}"
        await events.until(
            lambda: sum(DELIVERED in told for told in events.statuses.values()) == USERS
        )


class Stock:
    """The one-time keys that the relay has of the business, asked with the gateway's credential."""

    def __init__(self, running: Daemon, keys: keys_pb2_grpc.KeysStub, account: bytes) -> None:
        self._metadata = _credential(running)
        self._keys = keys
        self._request = keys_pb2.GetPreKeyCountRequest(account_id=account)

    async def count(self) -> tuple[int, int]:
        """EC and Kyber."""
        left = await self._keys.GetPreKeyCount(self._request, metadata=self._metadata, timeout=30)
        return left.one_time_pre_keys, left.one_time_kyber_pre_keys

    async def until_filled(self) -> None:
        """Nothing tells the end of an upload from outside: ask until it shows."""
        async with asyncio.timeout(30):
            while min(await self.count()) < 50:
                pass


@asynccontextmanager
async def stock(running: Daemon) -> AsyncIterator[Stock]:
    """The shop's stock. A bundle tells its account, and costs a key of each kind."""
    async with running.channel("relay") as channel:
        keys = keys_pb2_grpc.KeysStub(channel)
        request = keys_pb2.FetchBundlesRequest(targets=[keys_pb2.BundleTarget(phone_number=SHOP)])
        answer = await keys.FetchBundles(request, metadata=_credential(running), timeout=30)
        yield Stock(running, keys, answer.results[0].bundles.account_id)


def _credential(running: Daemon) -> tuple[tuple[str, str], ...]:
    return bearer((running.data / "keys" / "gateway.credential").read_text().strip())
