"""Durable commits a second of the LMDB engine, with the event loop idle and busy.

    python -m bench.store [--json] [--seconds S] [--folder DIR]

One commit is one message: 400 B record and expiry entry, 1 kB conversation record with a version
check, 40 B idempotency record. Conversations are drawn at random out of 20,000. "Busy" means that
another task keeps the front's event loop at work in 2 ms pieces all the time, as gRPC would.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.store.port import Check, Put, Table

from bench import measure as measurements

LETTERS = Table("letters", 10, expires=True)
CONVERSATIONS = Table("conversations", 11, expires=True)
REPEATS = Table("repeats", 12, expires=True)
TABLES = (LETTERS, CONVERSATIONS, REPEATS)

CONVERSATION_COUNT = 20_000
EXPIRES_MS = 1_900_000_000_000


class Sender:
    """One caller that commits one message after another to conversations of its own."""

    def __init__(self, store: LmdbStore, number: int, senders: int, latencies: list[float]) -> None:
        self._store = store
        self._latencies = latencies
        self._random = random.Random(number)
        self._conversations = range(number, CONVERSATION_COUNT, senders)
        self._versions: dict[int, int] = {}

    async def run(self, until: float) -> None:
        while time.perf_counter() < until:
            await self._commit()

    async def _commit(self) -> None:
        conversation = self._random.choice(self._conversations)
        key = conversation.to_bytes(16, "big")
        version = self._versions.get(conversation)
        if version is None:
            record = await self._store.get(CONVERSATIONS, key)
            version = 0 if record is None else record.version
        message_id = self._random.randbytes(16)
        expires = EXPIRES_MS + self._random.randrange(60_000)
        begun = time.perf_counter()
        (outcome,) = await self._store.commit(
            [
                [
                    Check(CONVERSATIONS, key, version),
                    Put(CONVERSATIONS, key, bytes(1_000), expires),
                    Put(LETTERS, key + message_id, bytes(400), expires),
                    Put(REPEATS, message_id, bytes(40), expires),
                ]
            ]
        )
        self._latencies.append(time.perf_counter() - begun)
        assert outcome is None
        self._versions[conversation] = version + 1


async def _busy() -> None:
    while True:
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            sum(range(200))
        await asyncio.sleep(0)


@asynccontextmanager
async def _load(busy: bool) -> AsyncIterator[None]:
    if not busy:
        yield
        return
    task = asyncio.create_task(_busy())
    yield
    task.cancel()


async def measure(folder: Path, in_flight: int, busy: bool, seconds: float) -> dict[str, object]:
    store = await LmdbStore.open(folder, TABLES, kind="bench", schema_version=1)
    latencies: list[float] = []
    senders = [Sender(store, number, in_flight, latencies) for number in range(in_flight)]
    async with _load(busy):
        begun = time.perf_counter()
        await asyncio.gather(*(sender.run(begun + seconds) for sender in senders))
        took = time.perf_counter() - begun
    await store.aclose()
    latencies.sort()
    return {
        "in_flight": in_flight,
        "loop": "busy" if busy else "idle",
        "commits_per_s": round(len(latencies) / took),
        "p50_ms": round(latencies[len(latencies) // 2] * 1e3, 2),
        "p99_ms": round(latencies[len(latencies) * 99 // 100] * 1e3, 2),
    }


async def run(folder: Path, seconds: float) -> list[dict[str, object]]:
    rows = []
    for in_flight in (1, 32, 256):
        for busy in (False, True):
            case = folder / f"{in_flight}-{busy}"
            rows.append(await measure(case, in_flight, busy, seconds))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON line a case")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a case")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = uvloop.run(run(Path(folder), options.seconds))
    title = "LMDB engine, durable commits of one message"
    measurements.show("store", title, rows, as_json=options.json)


if __name__ == "__main__":
    main()
