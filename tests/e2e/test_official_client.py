"""The official libsignal client as a user: it initiates, and it answers. Today's release, and the
last one that does not require the post-quantum ratchet."""

import os
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.harness.node import CURRENT_CLIENT, LAST_WITHOUT_SPQR, install_official_client
from tests.harness.node_device import NodeDevice, node_device
from tests.harness.people import READ, Shop, next_message, receiving, user
from tests.harness.supervised import Daemon

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.interop,
    pytest.mark.asyncio(loop_scope="session"),
]

Numbers = Callable[[], str]


@pytest.fixture(scope="session")
def official_client() -> None:
    """Skips, or fails where toolchains are required, when the client cannot be had."""
    missing = install_official_client()
    if missing is not None and os.environ.get("LETTERLOCK_REQUIRE_TOOLCHAINS") == "1":
        pytest.fail(missing)
    if missing is not None:
        pytest.skip(missing)


@pytest_asyncio.fixture(
    loop_scope="session", params=[CURRENT_CLIENT, LAST_WITHOUT_SPQR], ids=["0.103", "0.90"]
)
async def official(
    shared: Daemon, official_client: None, number: Numbers, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[NodeDevice, str]]:
    """A registered, connected user on the official client, and their number."""
    own_number = number()
    relay, ca = shared.addresses["relay"], shared.ca
    async with node_device(relay, ca, client=request.param) as device:
        await device.register(shared, own_number)
        yield device, own_number


async def test_it_answers_a_business_that_begins(
    shop: Shop, official: tuple[NodeDevice, str]
) -> None:
    device, own_number = official
    async with shop.client() as business, receiving(business) as events:
        for n in range(5):
            accepted = await business.send(to=own_number, text=f"offer {n}")
            got = await device.message()
            assert (got["text"], got["messageId"]) == (f"offer {n}", accepted.message_id)
            await device.call("send", accountId=got["accountId"], text=f"answer {n}")
            await device.call("read", accountId=got["accountId"], messageIds=[got["messageId"]])
            await events.until(events.reached(accepted.message_id, READ))
        assert [text for _, text in events.texts] == [f"answer {n}" for n in range(5)]


async def test_it_begins_and_a_business_answers(
    shop: Shop, official: tuple[NodeDevice, str]
) -> None:
    device, _ = official
    async with shop.client() as business, receiving(business) as events:
        for n in range(5):  # all before an answer: all are pre-key messages
            await device.call("send", phone=shop.number, text=f"question {n}")
        await events.until(lambda: len(events.texts) == 5)
        assert [text for _, text in events.texts] == [f"question {n}" for n in range(5)]
        user_id = events.texts[0][0]
        for n in range(3):
            await business.send(to=user_id, text=f"answer {n}")
            assert (await device.message())["text"] == f"answer {n}"
        await device.call("send", phone=shop.number, text="thanks")
        await events.until(lambda: (user_id, "thanks") in events.texts)


async def test_both_begin_at_the_same_time(shop: Shop, official: tuple[NodeDevice, str]) -> None:
    device, own_number = official
    async with shop.client() as business, receiving(business) as events:
        accepted = await business.send(to=own_number, text="from us")
        await device.call("send", phone=shop.number, text="from you")
        assert (await device.message())["text"] == "from us"
        await events.until(lambda: (accepted.user_id, "from you") in events.texts)
        for n in range(3):
            await business.send(to=own_number, text=f"then {n}")
            assert (await device.message())["text"] == f"then {n}"
            await device.call("send", phone=shop.number, text=f"so {n}")
        await events.until(lambda: len(events.texts) == 4)


async def test_it_talks_to_a_user_on_our_device_client(
    shared: Daemon, official: tuple[NodeDevice, str], number: Numbers
) -> None:
    device, own_number = official
    async with user(shared, number()) as ana:
        await ana.send_text(own_number, "hello from Python")
        got = await device.message()
        assert got["text"] == "hello from Python"
        await device.call("send", accountId=got["accountId"], text="hello from Node")
        assert (await next_message(ana)).text == "hello from Node"
