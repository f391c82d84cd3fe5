"""How long a start takes with a great many sessions and waiting messages, against an empty one.

    python -m bench.start [--json] [--records N] [--folder DIR]

`letterlockd serve` from the command to ready. The full folder has N sessions and N messages that
wait for businesses at the gateway, and N that wait for devices at the relay.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop
from letterlockd.app.parts import SCHEMA_VERSION
from letterlockd.app.stores import STORES
from letterlockd.clock import SystemClock
from letterlockd.gateway.inbox_rows import INBOX, row_key
from letterlockd.gateway.tables import CONVERSATIONS
from letterlockd.model.ids import AccountId
from letterlockd.records.v1.inbox_pb2 import StoredEvent, StoredEvents, StoredInbound
from letterlockd.relay.tables import MAILBOXES
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.store.history import HISTORY
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.store.port import NEVER, Put

from bench import measure as measurements
from tests.harness.supervised import daemon

STARTS = 5
FILL_STEP = 10_000
DAY_MS = 86_400_000


async def fill(data: Path, records: int) -> None:
    """Conversations are smaller than real ones, which no start reads."""
    event = StoredEvent(pseudonym=bytes(16), inbound=StoredInbound(sealed_payload=bytes(250)))
    inbox_row = StoredEvents(events=[event]).SerializeToString()
    until_ms = SystemClock().now_ms() + 20 * DAY_MS
    account = AccountId(os.urandom(16))
    await _fill(
        data,
        "gateway",
        records,
        lambda n: [
            Put(CONVERSATIONS, os.urandom(32), bytes(300), NEVER),
            Put(INBOX, row_key(account, n), inbox_row, until_ms),
        ],
    )
    await _fill(
        data,
        "relay",
        records,
        lambda n: [Put(MAILBOXES, os.urandom(8) + n.to_bytes(8, "big"), bytes(400), until_ms)],
    )


async def _fill(data: Path, name: str, records: int, puts: Callable[[int], list[Put]]) -> None:
    tables = [*STORES[name], *keyring.TABLES, HISTORY, DELETIONS]
    store = await LmdbStore.open(data / name, tables, kind=name, schema_version=SCHEMA_VERSION)
    for start in range(1, records + 1, FILL_STEP):
        numbers = range(start, min(start + FILL_STEP, records + 1))
        await store.commit([[put for n in numbers for put in puts(n)]])
    await store.aclose()


async def start(folder: Path) -> float:
    """Seconds from the command to ready."""
    begun = time.perf_counter()
    async with daemon(folder):
        return time.perf_counter() - begun


async def run(folder: Path, records: int) -> list[dict[str, object]]:
    """The two in turns, so that what else the machine does meets both."""
    empty, full = folder / "empty", folder / "full"
    for one in (empty, full):
        one.mkdir()
        await start(one)  # makes keys and stores
    await fill(full / "letterlock-data", records)
    os.sync()  # or the first start would wait for what the filling left to be written
    took = [(await start(empty), await start(full)) for _ in range(STARTS)]
    return [_row(0, [one for one, _ in took]), _row(records, [other for _, other in took])]


def _row(records: int, took: Sequence[float]) -> dict[str, object]:
    spread = measurements.Spread.of(took)
    return {"sessions": records, "waiting": 2 * records, "ready_s": round(spread.median, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON line a case")
    parser.add_argument("--records", type=int, default=1_000_000, help="of each kind")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = uvloop.run(run(Path(folder), options.records))
    measurements.show("start", "letterlockd serve to ready", rows, as_json=options.json)


if __name__ == "__main__":
    main()
