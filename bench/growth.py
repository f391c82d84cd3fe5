"""Speed and memory while the stores grow: sessions at the gateway, waiting messages at the relay.

The gateway's half is the real front, workers and LMDB committer with a relay that answers at once
(`bench.gateway`), since verifying a million numbers would take the relay's rations fourteen hours.
The relay's half is the hop of `bench.relay` while mailboxes of users who are away hold messages.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench import hop
from bench.gateway import numbers, open_gateway
from bench.processes import cpu_s, memory_mb, own_memory_mb, rounded
from bench.relay import relay_hop
from bench.row import Row, Sizes, per_thousand

TEXT_BYTES = 256
WAIT_IN_A_MAILBOX = 1_000
"""Messages that wait in one mailbox; the relay takes ten thousand."""
_GROWN_AT_ONCE = 10_000


async def growth(sizes: Sizes) -> AsyncIterator[Row]:
    """Throughput and memory while sessions and waiting messages grow, up to a million."""
    async for row in _sessions(sizes):
        yield row
    async for row in _waiting(sizes):
        yield row


async def _sessions(sizes: Sizes) -> AsyncIterator[Row]:
    """A message each to users drawn at random out of all that have a session, the same in all
    rounds: the second message of a session costs more than those that follow, and is the
    warm-up's. Never two to one in a round, or the smaller stores would gain by larger batches."""
    drawn = random.Random(5)
    count = min(sizes.messages, *sizes.growth)
    with tempfile.TemporaryDirectory(dir=sizes.folder) as folder:
        async with open_gateway(Path(folder), store_kind="lmdb", text_bytes=TEXT_BYTES) as opened:
            known: list[str] = []
            for size in sorted(sizes.growth):
                while len(known) < size:
                    fresh = numbers(len(known), min(size, len(known) + _GROWN_AT_ONCE))
                    await opened.load.send(fresh, len(fresh))
                    known += fresh
                to = drawn.sample(known, count)
                for round_ in range(-1, sizes.rounds):
                    before, began = cpu_s(opened.pids), time.monotonic()
                    await opened.load.send(to, len(to))
                    seconds = time.monotonic() - began
                    if round_ >= 0:  # the first one warms up
                        yield {
                            "sessions": size,
                            "round": round_,
                            "messages_per_s": round(len(to) / seconds),
                            "cpu_s_per_1000": per_thousand(before, cpu_s(opened.pids), len(to)),
                            "peak_memory_mb": rounded(memory_mb(opened.pids)),
                            "own_memory_mb": own_memory_mb(opened.pids),
                        }


async def _waiting(sizes: Sizes) -> AsyncIterator[Row]:
    """The hop while mailboxes of users who are away hold messages."""
    async with relay_hop(sizes) as side:
        waiting = 0
        for size in sorted(sizes.growth):
            waiting += await side.leave(size - waiting, WAIT_IN_A_MAILBOX)
            async for row in hop.in_turns([side], sizes):
                yield {**row, "waiting": waiting}
