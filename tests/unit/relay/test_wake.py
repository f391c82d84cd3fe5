"""`Wake` lets its one waiter go on, whichever comes first; a wait given up is forgotten."""

from __future__ import annotations

import asyncio

import pytest
from letterlockd.relay.wake import Wake


async def test_what_is_set_is_not_waited_for() -> None:
    wake = Wake()
    wake.set()
    await wake.wait()
    await wake.wait()


async def test_a_waiter_goes_on_once_it_is_set() -> None:
    wake = Wake()
    waiter = asyncio.create_task(wake.wait())
    await asyncio.sleep(0)
    assert not waiter.done()
    wake.set()
    wake.set()
    await waiter


async def test_after_clear_the_next_wait_waits() -> None:
    wake = Wake()
    wake.set()
    wake.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await wake.wait()


async def test_a_wait_that_was_given_up_holds_up_nobody() -> None:
    wake = Wake()
    given_up = asyncio.create_task(wake.wait())
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    wake.set()
    await wake.wait()
