"""The daemon of the crash tests: `python -m tests.faults.store.front_program FOLDER CALLS`.

Commits transactions 0, 1, 2 … (each writes `WIDTH` records of its own, moves one shared record on
and takes a number), eight in flight, and prints a line for each as soon as it is answered. Prints
"lost" and exits 3 when the committer is lost.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.store.port import Put, StoreUnavailable, Table

PARTS = Table("parts", 10, expires=True)
SHARED = Table("shared", 11, expires=False)
TABLES = (PARTS, SHARED)
WIDTH = 5
IN_FLIGHT = 8


def part_key(transaction: int, part: int) -> bytes:
    return b"%06d/%d" % (transaction, part)


async def _send(store: LmdbStore, first: int, calls: int) -> None:
    for transaction in range(first, calls, IN_FLIGHT):
        parts = [
            Put(PARTS, part_key(transaction, part), bytes(500), 1_000 + transaction)
            for part in range(WIDTH)
        ]
        await store.commit([[*parts, Put(SHARED, b"shared", b"%d" % transaction)]])
        say(f"{transaction}")


async def _main(folder: Path, calls: int) -> int:
    store = await LmdbStore.open(folder, TABLES, kind="test", schema_version=1)
    say(f"pid {store.committer_pid}")
    # No TaskGroup: it would cancel a sender between its answer and the line about it.
    ends = await asyncio.gather(
        *(_send(store, first, calls) for first in range(IN_FLIGHT)), return_exceptions=True
    )
    await store.aclose()
    if not any(isinstance(end, StoreUnavailable) for end in ends):
        return 0
    say("lost" if await store.failed() is not None else "closed")
    return 3


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(Path(sys.argv[1]), int(sys.argv[2]))))
