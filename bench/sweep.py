"""How long commits take while a great many records expire, against a quiet store.

    python -m bench.sweep [--json] [--records N] [--seconds S] [--step N] [--folder DIR]

The store is filled with records that are due. 200 messages a second are committed, each like
`bench.store`'s, first with the sweeper asleep and then with it at work, in turns. Latency is
measured from when a message was due to be sent, so that a stall counts for all that wait for it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

import uvloop
from letterlockd.clock import SystemClock
from letterlockd.housekeeping import Duty, Sweeper
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS, Deletions
from letterlockd.sealing.keyring import Keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.store.port import Put

from bench import measure as measurements
from bench.store import LETTERS, REPEATS, TABLES

RATE = 200
FILL_STEP = 5_000
ROUNDS = 5


async def fill(store: LmdbStore, records: int, due_ms: int) -> None:
    """Records of two tables, under random keys as message ids and keyed hashes are."""
    for start in range(0, records, FILL_STEP):
        puts = [
            Put(table, os.urandom(32), bytes(size), due_ms)
            for table, size in ((LETTERS, 400), (REPEATS, 40))
            for _ in range(min(FILL_STEP, records - start) // 2)
        ]
        await store.commit([puts])


async def stream(store: LmdbStore, seconds: float, expires_ms: int) -> list[float]:
    """Latencies in seconds of a steady stream of commits."""
    latencies: list[float] = []

    async def one(due: float) -> None:
        await store.commit(
            [
                [
                    Put(LETTERS, os.urandom(32), bytes(400), expires_ms),
                    Put(REPEATS, os.urandom(32), bytes(40), expires_ms),
                ]
            ]
        )
        latencies.append(time.perf_counter() - due)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * RATE)):
            due = begun + number / RATE
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))
    return latencies


async def swept_stream(
    store: LmdbStore, sweeper: Sweeper, seconds: float, expires_ms: int
) -> tuple[list[float], int]:
    """As `stream`, with the sweeper at work; and how many records it removed."""
    before = await _records(store)
    sweeping = asyncio.create_task(sweeper.run())
    latencies = await stream(store, seconds, expires_ms)
    sweeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sweeping
    return latencies, before + 2 * len(latencies) - await _records(store)


async def _records(store: LmdbStore) -> int:
    return await store.count(LETTERS) + await store.count(REPEATS)


async def run(options: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    clock = SystemClock()
    store = await LmdbStore.open(
        folder, [*TABLES, *keyring.TABLES, DELETIONS], kind="bench", schema_version=1
    )
    await fill(store, options.records, clock.now_ms())
    keys = await Keyring.open(store, FileKeyProvider(folder.parent / "master.key"), clock)
    duty = Duty(store, await Deletions.open(store, keys))
    sweeper = Sweeper([duty], [keys], clock, interval_seconds=1, **options.bounds)
    os.sync()  # or the first round would wait for what the filling left to be written
    quiet: list[list[float]] = []
    busy: list[list[float]] = []
    removed = 0
    for _ in range(ROUNDS):
        expires_ms = clock.now_ms() + 86_400_000
        quiet.append(await stream(store, options.seconds, expires_ms))
        latencies, count = await swept_stream(store, sweeper, options.seconds, expires_ms)
        busy.append(latencies)
        removed += count
    left = options.records - removed
    await store.aclose()
    return [
        _row("quiet", quiet, quiet) | {"removed_per_s": 0, "due_left": options.records},
        _row("sweeping", busy, quiet)
        | {"removed_per_s": round(removed / options.seconds / ROUNDS), "due_left": left},
    ]


def _row(case: str, rounds: list[list[float]], quiet: list[list[float]]) -> dict[str, object]:
    """Medians over the rounds; the ratio is taken round by round, before its median."""
    p50, p99 = ([_quantile(one, share) for one in rounds] for share in (0.5, 0.99))
    ratios = [mine / _quantile(one, 0.99) for mine, one in zip(p99, quiet, strict=True)]
    return {
        "case": case,
        "p50_ms": round(statistics.median(p50) * 1e3, 2),
        "p99_ms": round(statistics.median(p99) * 1e3, 2),
        "p99_ratio": round(statistics.median(ratios), 2),
    }


def _quantile(latencies: list[float], share: float) -> float:
    return measurements.quantile(sorted(latencies), share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON line a case")
    parser.add_argument("--records", type=int, default=1_000_000, help="how many are due")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a case, five times")
    parser.add_argument("--step", type=int, help="records a transaction")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    options.bounds = {} if options.step is None else {"limit_per_step": options.step}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = uvloop.run(run(options, Path(folder) / "store"))
    measurements.show("sweep", f"{RATE} commits/s beside a sweep", rows, as_json=options.json)


if __name__ == "__main__":
    main()
