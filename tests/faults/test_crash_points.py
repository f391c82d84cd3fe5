"""kill -9 of the supervised daemon at commits that the fault rounds seldom meet: while a message is
healed, and in the registry. The rounds (`rounds`) have all others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from letterlock import AdminClient
from letterlock.errors import Unavailable
from letterlock.v1 import businesses_pb2
from letterlockd import failpoints

from tests.harness.people import (
    DELIVERED,
    FAILED,
    PATIENT,
    WAIT_SECONDS,
    forget_sessions,
    next_message,
    open_shop,
    operator,
    receiving,
    user,
)
from tests.harness.supervised import Daemon, daemon

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]

HEALING_POINTS = ("gateway.healing.before_commit", "gateway.healing.after_commit")
"""The first commit of a healing archives the session; what is sent again comes in a later one."""
REGISTRY_POINTS = ("store.registry.commit.before", "store.registry.commit.after")

_numbers = count(1)


def new_number() -> str:
    return f"+1556{next(_numbers):07d}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def armed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which points are armed."""
    return tmp_path_factory.mktemp("armed")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, armed: Path) -> AsyncIterator[Daemon]:
    """One daemon that dies and comes back; each test has a business and users of its own."""
    patient = ("--set", "serve.max_restarts=1000", "--set", "serve.restart_window_seconds=1")
    points = ";".join(f"{point}=kill" for point in (*HEALING_POINTS, *REGISTRY_POINTS))
    environment = {failpoints.VARIABLE: points, failpoints.ARMED_VARIABLE: str(armed)}
    folder = tmp_path_factory.mktemp("daemon")
    async with daemon(folder, *patient, environment=environment) as running:
        yield running


@pytest.mark.parametrize("point", HEALING_POINTS)
async def test_a_message_that_is_being_healed_arrives_once(
    running: Daemon, armed: Path, point: str
) -> None:
    await running.whole()
    shop, number = await open_shop(running, new_number()), new_number()
    async with (
        shop.client(retry=PATIENT) as business,
        receiving(business) as events,
        user(running, number) as ana,
    ):
        await business.send(to=number, text="hello")
        assert (await next_message(ana)).text == "hello"
        forget_sessions(ana)
        (armed / point).touch()
        accepted = await business.send(to=number, text="important")
        got = await next_message(ana)
        assert (got.text, got.message_id.hex()) == ("important", accepted.message_id)
        reading = asyncio.create_task(ana.next_event())
        await events.until(events.reached(accepted.message_id, DELIVERED))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert not (armed / point).exists(), "the point was never passed"
        assert FAILED not in events.statuses[accepted.message_id]


@pytest.mark.parametrize("point", REGISTRY_POINTS)
async def test_a_number_is_there_once_after_a_crash_of_the_registry(
    running: Daemon, armed: Path, point: str
) -> None:
    await running.whole()
    number = new_number()
    async with operator(running) as admin:
        business = await admin.create_business("Corner shop")
        (armed / point).touch()
        added = await _added(admin, business.business_id, number)
        assert not (armed / point).exists(), "the point was never passed"
        assert [given.phone_number for given in added.numbers] == [number]
        assert (await admin.business(business.business_id)).numbers == added.numbers


async def _added(admin: AdminClient, business_id: str, number: str) -> businesses_pb2.Business:
    """Again and again, as an operator would, until the gateway is back."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            with suppress(Unavailable):
                return await admin.add_number(business_id, number)
