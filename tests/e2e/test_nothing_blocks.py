"""Both roles on one event loop, with everything real but their processes: no call on it blocks.

blockbuster makes blocking calls (files, sockets, sleeps, locks, SQLite) raise when they are made
on the loop. Reads of LMDB's memory map are out of its sight: they are bounded by their limits.
"""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from blockbuster import BlockBuster, BlockingError
from letterlock import AdminClient, BusinessClient, Device, MemoryStore, OutgoingMessage
from letterlockd.app import gateway, relay
from letterlockd.config import load
from letterlockd.layout import Layout, prepare_keys
from letterlockd.role import Composed

from tests.harness.people import DELIVERED, next_message, receiving

pytestmark = pytest.mark.e2e

SHOP, ANA = "+15550100100", "+15550100101"
MESSAGES = 200


@asynccontextmanager
async def roles(layout: Layout) -> AsyncIterator[tuple[str, str]]:
    """A relay and a gateway that serve; their addresses."""
    prepare_keys(layout)
    async with AsyncExitStack() as opened:
        relay_at = await _serve(relay.compose, layout, {"relay.listen": "127.0.0.1:0"}, opened)
        own = {"gateway.listen": "127.0.0.1:0", "gateway.relay": relay_at}
        gateway_at = await _serve(gateway.compose, layout, own, opened)
        yield relay_at, gateway_at


async def _serve(compose, layout: Layout, own: dict[str, object], opened: AsyncExitStack) -> str:
    settings = load(None, {"data_folder": layout.data, **own}).settings
    role: Composed = await compose(settings, opened)
    opened.push_async_callback(role.server.drain, 0)
    await role.server.start()
    opened.push_async_callback(role.drain, 5.0)
    return f"127.0.0.1:{role.server.port}"


async def test_a_conversation_without_a_blocking_call(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    async with roles(layout) as (relay_at, gateway_at), AsyncExitStack() as stack:
        token = layout.operator_token.read_text().strip()
        admin = await stack.enter_async_context(AdminClient(gateway_at, token, ca=layout.ca))
        made = await admin.create_business("Corner shop")
        await admin.add_number(made.business_id, SHOP)
        issued = await admin.issue_token(made.business_id)
        business = await stack.enter_async_context(
            BusinessClient(gateway_at, issued.token, number=SHOP, ca=layout.ca)
        )
        ana = await stack.enter_async_context(
            Device(relay_at, store=MemoryStore(), ca=layout.ca, one_time_pre_keys=5)
        )
        verification = await ana.request_verification(ANA)
        code = (layout.data / "verification" / verification).read_text()
        await ana.register(ANA, verification, code)
        async with receiving(business) as events:
            detector = BlockBuster()
            detector.activate()
            try:
                await talk(business, ana)
                await events.until(lambda: len(events.texts) == MESSAGES)
                await events.until(
                    lambda: sum(DELIVERED in told for told in events.statuses.values()) == MESSAGES
                )
            finally:
                detector.deactivate()


async def talk(business: BusinessClient, ana: Device) -> None:
    """A first contact, then a stream in each direction."""
    await ana.connect()
    offers = [OutgoingMessage(ANA, f"offer {n}") for n in range(MESSAGES)]
    results = [result async for result in business.send_many(offers)]
    assert [result.error for result in results] == [None] * MESSAGES
    for n in range(MESSAGES):
        assert (await next_message(ana)).text == f"offer {n}"
        await ana.send_text(SHOP, f"answer {n}", wait=n % 10 == 0)


async def test_the_detector_sees_a_blocking_call() -> None:
    detector = BlockBuster()
    detector.activate()
    try:
        with pytest.raises(BlockingError):
            time.sleep(0)  # noqa: ASYNC251 - this is what must be found
    finally:
        detector.deactivate()
