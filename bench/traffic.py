"""The workloads that go the whole way, through the real daemon: business stream to device stream,
and back.

`letterlockd serve` as it is shipped: processes of its own, TLS, every answer after its fsync. The
users' devices are in a process of their own, the business in this one, and everything shares the
machine. A first round only warms up. Every message must arrive exactly once and, outbound, be
reported as delivered exactly once, or the run fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from bench import measure
from bench.business import Business
from bench.ledger import LedgerError
from bench.processes import rounded, watched_memory
from bench.row import Row, Sizes, per_thousand
from bench.stage import FIRST_USER, PATIENCE_S, TEXT_BYTES, WINDOW, Stage, stage

DEVICES_EACH = 6
DEVICE_BURST = 200
"""What the relay takes from one device at once (`relay/settings.py`, submissions_per_device).
Beyond that it may refuse, rightly, and the ledger would stay open."""
_REFILL_S = DEVICE_BURST / 50
"""Until the relay takes as many again."""


async def campaign_known(sizes: Sizes) -> AsyncIterator[Row]:
    """Business to many users, sessions established and answered, 4,096 unanswered at most."""
    async with _established(sizes, sizes.users) as (on, business):
        async for row in _rounds(sizes, lambda: _campaign(on, business, _even(sizes))):
            yield row


async def campaign_new(sizes: Sizes) -> AsyncIterator[Row]:
    """Business to many users, all of them first contacts: each round is a new business's."""
    async with stage(sizes.folder, sizes.new_users) as on:
        await on.register()

        async def round_() -> Row:
            async with on.new_business() as business:
                return await _campaign(on, business, on.users)

        async for row in _rounds(sizes, round_):
            yield row


async def inbound(sizes: Sizes) -> AsyncIterator[Row]:
    """Many users to one business."""
    count = min(_even(sizes), sizes.users * DEVICE_BURST)
    async with _established(sizes, sizes.users) as (on, business):

        async def work() -> float:
            business.events.begin(count)
            sent = await on.fleet("send", count=count, body="x" * TEXT_BYTES)
            try:
                await business.until_texts(count, PATIENCE_S)
            finally:
                await _nothing_refused(on)
            return business.events.texts.last_s - float(sent["began_s"])

        async def rested() -> Row:
            await asyncio.sleep(_REFILL_S)
            return await _costed(on, count, work)

        async for row in _rounds(sizes, rested):
            yield row


async def chat(sizes: Sizes) -> AsyncIterator[Row]:
    """Ping-pong in many conversations at once: each text waits for the answer to the one before."""
    turns = min(sizes.turns, DEVICE_BURST)
    count = turns * sizes.conversations
    async with _established(sizes, sizes.conversations) as (on, business):

        async def work() -> float:
            await on.fleet("begin", expected=count, echo=True)
            began = await business.converse(turns, PATIENCE_S)
            await on.arrived(business, count)
            await _nothing_refused(on)
            return business.events.texts.last_s - began

        async for row in _rounds(sizes, lambda: _costed(on, 2 * count, work)):
            yield row


async def latency(sizes: Sizes) -> AsyncIterator[Row]:
    """From when a message was due to when its device has its text, at fixed rates (open loop)."""
    async with _established(sizes, sizes.users) as (on, business):
        await _paced(on, business, sizes.rates[0], 1)
        for round_ in range(sizes.rounds):
            for rate in sizes.rates:
                yield {"round": round_, **await _paced(on, business, rate, sizes.seconds)}


async def devices(sizes: Sizes) -> AsyncIterator[Row]:
    """Connected devices that get nothing: the memory and CPU time that the daemon spends on them.

    One round: the devices stay registered, and a daemon without any is what they are held against.
    """
    async with stage(sizes.folder, 0) as on:
        before = sum(on.processes.memory_mb().values())
        users = -(-sizes.devices // DEVICES_EACH)
        made = await on.fleet(
            "register", users=users, devices_each=DEVICES_EACH, first_number=FIRST_USER
        )
        held = on.processes.memory_mb()
        idle = await on.idle_cores(sizes.seconds)
        total = sum(held.values())
        yield {
            "round": 0,
            "devices": made["devices"],
            "memory_mb": round(total),
            "memory_without_mb": round(before),
            "kb_per_device": round((total - before) * 1e3 / made["devices"], 1),
            "idle_cores": round(idle, 3),
            "peak_memory_mb": rounded(held),
        }


def _even(sizes: Sizes) -> int:
    """The messages of a round, the same number for each user."""
    return max(sizes.messages - sizes.messages % sizes.users, sizes.users)


@asynccontextmanager
async def _established(sizes: Sizes, users: int) -> AsyncIterator[tuple[Stage, Business]]:
    async with stage(sizes.folder, users) as on, on.new_business() as business:
        await on.register()
        await on.establish(business)
        yield on, business


async def _rounds(sizes: Sizes, round_: Callable[[], Awaitable[Row]]) -> AsyncIterator[Row]:
    """The rows of all rounds but the first, which warms up."""
    await round_()
    for number in range(sizes.rounds):
        yield {"round": number, **await round_()}


async def _campaign(on: Stage, business: Business, count: int) -> Row:
    async def work() -> float:
        await on.fleet("begin", expected=count)
        business.events.begin()
        began = await business.send(count, WINDOW)
        came = await on.arrived(business, count)
        return float(came["last_s"]) - began

    return await _costed(on, count, work)


async def _paced(on: Stage, business: Business, rate: int, seconds: int) -> Row:
    count = rate * seconds
    before = on.cpu_s()
    await on.fleet("begin", expected=count)
    business.events.begin()
    await business.send_at(rate, count)
    came = await on.arrived(business, count)
    latencies = list(came["latencies_ms"])
    return {
        "rate": rate,
        "p50_ms": round(measure.quantile(latencies, 0.5), 1),
        "p99_ms": round(measure.quantile(latencies, 0.99), 1),
        "max_ms": round(latencies[-1], 1),
        "cpu_s_per_1000": per_thousand(before, on.cpu_s(), count),
        "latencies_ms": latencies,
    }


async def _nothing_refused(on: Stage) -> None:
    """A refusal is why the ledger stays open: told instead of the count that it leaves."""
    if refused := (await on.fleet("refusals"))["refused"]:
        raise LedgerError(f"the relay refused messages of devices: {refused}")


async def _costed(on: Stage, count: int, work: Callable[[], Awaitable[float]]) -> Row:
    """The speed of some work, and what it took from the processes."""
    before = on.cpu_s()
    async with watched_memory(on.processes) as peak:
        seconds = await work()
    return {
        "messages": count,
        "messages_per_s": round(count / seconds),
        "cpu_s_per_1000": per_thousand(before, on.cpu_s(), count),
        "peak_memory_mb": rounded(peak),
    }
