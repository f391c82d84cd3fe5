"""All processes of the daemon are gone at the same moment, as in a power cut, and a new daemon
starts in the folder: the same load and the same judgement as for the single crash points."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest

from tests.faults.test_crash_points import NEW_USERS, OLD_USERS, Load, new_number
from tests.harness.people import PATIENT, open_shop, user
from tests.harness.supervised import Daemon, daemon

pytestmark = pytest.mark.faults


def cut(running: Daemon) -> None:
    """SIGKILL to all of them; the first ones get no time to notice that others are gone."""
    top = psutil.Process(running.process.pid)
    processes = [top, *top.children(recursive=True)]
    for process in processes:
        process.suspend()
    for process in processes:
        process.kill()


async def test_nothing_is_lost_repeated_or_reordered_by_a_power_cut(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(daemon(tmp_path))
        shop = await open_shop(running, new_number())
        business = await stack.enter_async_context(shop.client())
        patient = await stack.enter_async_context(shop.client(retry=PATIENT))
        users = {}
        for _ in range(OLD_USERS + NEW_USERS):
            number = new_number()
            users[number] = await stack.enter_async_context(user(running, number))
        restarted: list[asyncio.Task[Daemon]] = []

        async def start_again() -> Daemon:
            await running.process.wait()
            listen = [f"{role}.listen={at}" for role, at in running.addresses.items()]
            again = daemon(tmp_path, *(part for text in listen for part in ("--set", text)))
            return await stack.enter_async_context(again)

        def strike() -> None:
            cut(running)
            restarted.append(asyncio.create_task(start_again()))

        load = Load(business, patient, shop.number)
        old = list(users)[:OLD_USERS]
        await load.introduce({number: users[number] for number in old})
        await load.play({n: users[n] for n in users if n not in old}, strike)
        (again,) = [await task for task in restarted]
        assert again.process.pid != running.process.pid
