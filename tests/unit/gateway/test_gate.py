from __future__ import annotations

import asyncio

from letterlockd.gateway.gate import Gate

from tests.harness.clock import settle


async def test_first_come_first_served() -> None:
    gate = Gate(10)
    await gate.take(8)
    large = asyncio.create_task(gate.take(5))
    small = asyncio.create_task(gate.take(1))
    await settle()
    assert not large.done()
    assert not small.done()
    gate.give_back(3)
    await large
    await settle()
    assert not small.done()
    gate.give_back(5)
    await small
    assert gate.taken == 6


async def test_more_than_the_limit_waits_for_all_of_it() -> None:
    gate = Gate(10)
    await gate.take(1)
    huge = asyncio.create_task(gate.take(11))
    await settle()
    assert not huge.done()
    gate.give_back(1)
    await huge
    assert gate.taken == 11


async def test_who_gives_up_takes_nothing() -> None:
    gate = Gate(1)
    await gate.take(1)
    gone = asyncio.create_task(gate.take(1))
    await settle()
    gone.cancel()
    await settle()
    gate.give_back(1)
    assert gate.taken == 0
    await gate.take(1)


async def test_who_is_cancelled_as_their_turn_comes_gives_it_back() -> None:
    gate = Gate(1)
    await gate.take(1)
    gone = asyncio.create_task(gate.take(1))
    await settle()
    gate.give_back(1)
    gone.cancel()
    await settle()
    assert gate.taken == 0
