"""The peers of the `relay` workload: durable brokers that people would pick instead.

A peer that is not installed is named as skipped. Each begins in a fresh folder, on loopback, and is
set to make a message durable before it says so.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from bench import hop
from bench.peers import jetstream, postgresql, redis
from bench.peers.server import Missing
from bench.relay import relay_hop
from bench.row import Row, Sizes

_OPEN = {
    jetstream.NAME: jetstream.jetstream_hop,
    redis.NAME: redis.redis_hop,
    postgresql.NAME: postgresql.postgresql_hop,
}
NAMES = tuple(_OPEN)


async def peers(sizes: Sizes) -> AsyncIterator[Row]:
    """The relay's work on it and on the durable brokers that are installed, in turns."""
    async with AsyncExitStack() as opened:
        sides: list[hop.Hop] = [await opened.enter_async_context(relay_hop(sizes))]
        for name, open_hop in _OPEN.items():
            try:
                sides.append(await opened.enter_async_context(open_hop(sizes)))
            except Missing as missing:
                print(f"{name} is skipped: {missing}", file=sys.stderr)
                yield {"skipped": name, "because": str(missing)}
        async for row in hop.in_turns(sides, sizes):
            yield row
