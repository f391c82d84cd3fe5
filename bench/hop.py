"""The blind hop as a workload: the same work for our relay and for each peer, in turns.

A message of 256 bytes is submitted, committed with an fsync, delivered, acknowledged and deleted;
mailboxes are taken in turn. Knows no transport: `bench.relay` and `bench.peers` bring theirs.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from bench.ledger import LedgerError
from bench.processes import cpu_s, memory_mb, own_memory_mb, rounded
from bench.row import LOAD, Row, Sizes, per_thousand

BODY_BYTES = 256
_NUMBER_BYTES = 8
BATCH = 64
"""Submitted at once, by all sides."""
OUTSTANDING = 4_096
"""Submitted and not yet delivered, at most."""
PATIENCE_S = 120.0
_PADDING = os.urandom(BODY_BYTES - _NUMBER_BYTES)


def body(number: int) -> bytes:
    """The message with this number."""
    return number.to_bytes(_NUMBER_BYTES, "big") + _PADDING


def number_of(message: bytes) -> int:
    """The number that a message begins with."""
    return int.from_bytes(message[:_NUMBER_BYTES], "big")


class Hop(Protocol):
    """A side that is set up and carries rounds of messages."""

    name: str

    def processes(self) -> Mapping[int, str]:
        """Its own processes, ids and roles."""
        ...

    async def carry(self, count: int) -> float:
        """Carry that many; seconds from the first submission until the last is deleted for good.
        Raises `LedgerError` unless each arrived once."""
        ...


async def in_turns(hops: Sequence[Hop], sizes: Sizes) -> AsyncIterator[Row]:
    """Rounds of all sides alternating, after one that warms up."""
    for hop in hops:
        await _carry(hop, max(BATCH, sizes.messages // 10))
    for round_ in range(sizes.rounds):
        for hop in hops:
            yield {"side": hop.name, "round": round_, **await _carried(hop, sizes.messages)}


async def _carried(hop: Hop, count: int) -> Row:
    pids = {**hop.processes(), os.getpid(): LOAD}
    before = cpu_s(pids)
    seconds = await _carry(hop, count)
    used = per_thousand(before, cpu_s(pids), count)
    return {
        "messages": count,
        "messages_per_s": round(count / seconds),
        "cpu_s_per_1000": used,
        "peak_memory_mb": rounded(memory_mb(hop.processes())),
        "own_memory_mb": own_memory_mb(hop.processes()),
    }


async def _carry(hop: Hop, count: int) -> float:
    try:
        return await hop.carry(count)
    except TimeoutError:
        late = f"{count} messages were not through in {PATIENCE_S:.0f} s"
        raise LedgerError(f"{hop.name}: {late}") from None
