"""The relay is away for hours while a business goes on sending: what is accepted waits on the disk
and not in memory, and arrives in order. (What happens when a million wait, and senders are told
QUEUE_FULL, is in tests/unit/gateway/test_sending_rules.py.)"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest
from letterlock import OutgoingMessage

from tests.harness.people import PATIENT, next_message, open_shop, user
from tests.harness.site import ROLES, site

pytestmark = pytest.mark.faults

SHOP = "+15590000001"
USERS = [f"+155900000{n}" for n in range(10, 15)]
"""So many that what waits for one has room in a mailbox, also where the device reads slowly."""
TAKEN, MORE, SIZE = 8_000, 2_000, 4_000
"""The first fill what is bounded by numbers: windows, caches. What comes on top has no place in
memory left."""
MOST_GROWTH = MORE * SIZE
"""Bytes of private memory. Each message is there twice, as ciphertext and as kept payload: in
memory, they would need at least twice as much."""
HOURS_MS = 6 * 3_600_000


async def test_what_waits_for_the_relay_is_on_disk_and_arrives_in_order(tmp_path: Path) -> None:
    async with site(tmp_path / "site") as running, AsyncExitStack() as stack:
        users = [await stack.enter_async_context(user(running, number)) for number in USERS]
        shop = await open_shop(running, SHOP)
        async with shop.client(retry=PATIENT) as business:

            async def send(numbers: range) -> None:
                messages = [
                    OutgoingMessage(USERS[n % len(USERS)], f"{n} ".ljust(SIZE, "."))
                    for n in numbers
                ]
                async with business.send_many(messages, window=100) as results:
                    async for result in results:
                        assert result.accepted is not None

            async def read(reader: int, numbers: range) -> None:
                for n in numbers[(reader - numbers.start) % len(USERS) :: len(USERS)]:
                    assert ((await next_message(users[reader])).text or "").split()[0] == str(n)

            async def all_read(numbers: range) -> None:
                await asyncio.gather(*(read(reader, numbers) for reader in range(len(users))))

            await send(range(len(users)))
            await all_read(range(len(users)))
            gateway = running.roles["gateway"].process()
            async with running.roles["relay"].away():
                await send(range(len(users), TAKEN))
                before = _private_bytes(gateway)
                await send(range(TAKEN, TAKEN + MORE))
                assert _private_bytes(gateway) - before < MOST_GROWTH
                for role in ROLES:
                    running.set_clock(role, HOURS_MS)
            await all_read(range(len(users), TAKEN + MORE))
        assert running.roles["gateway"].ends.total() == 0


def _private_bytes(process: psutil.Process) -> int:
    """Without the pages of the store's file that are mapped."""
    memory = process.memory_info()
    return memory.rss - memory.shared
