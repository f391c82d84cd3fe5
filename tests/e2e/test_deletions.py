"""What is removed at its end is on record: listed by the command, checked by `verify`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from letterlockd.exit_codes import ExitCode
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.store.lmdb.schema import table_db

from tests.harness.people import EXPIRED, WAIT_SECONDS, open_shop, receiving, user
from tests.harness.supervised import daemon

pytestmark = pytest.mark.e2e

SHOP, ANA = "+15591000001", "+15591000002"


async def letterlockd(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "letterlockd", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def removed_mailbox_rows(folder: Path) -> int:
    listed = await letterlockd(folder, "deletions", "--json")
    assert listed.returncode == 0, listed.stderr
    assert ANA not in listed.stdout
    hours = json.loads(listed.stdout)
    return sum(hour["removed"].get("mailboxes", 0) for hour in hours if hour["store"] == "relay")


async def test_an_expired_message_is_on_record_and_the_record_cannot_be_changed(
    tmp_path: Path,
) -> None:
    async with daemon(tmp_path) as running:
        shop = await open_shop(running, SHOP)
        async with (
            user(running, ANA, connect=False),
            shop.client() as business,
            receiving(business) as events,
        ):
            sent = await business.send(to=ANA, text="soon gone", time_to_live=1)
            await events.until(events.reached(sent.message_id, EXPIRED))
            async with asyncio.timeout(WAIT_SECONDS):
                # The sweep has yet to write it down. One that was over before the relay had it, on
                # a busy machine, leaves no row there.
                while not await removed_mailbox_rows(tmp_path):
                    await business.send(to=ANA, text="soon gone", time_to_live=1)
    assert (await letterlockd(tmp_path, "verify")).returncode == 0
    _count_one_more(tmp_path / "letterlock-data" / "relay")
    damaged = await letterlockd(tmp_path, "verify", "--json")
    assert damaged.returncode == ExitCode.DAMAGED
    wrong = {report["store"]: report["wrong"] for report in json.loads(damaged.stdout)}
    assert wrong["relay"] == {"deletions: seal does not open": 1}


def _count_one_more(store: Path) -> None:
    """Change one byte of the newest entry, as somebody with the disk could."""
    with lmdb.open(str(store), max_dbs=64) as env:
        table = env.open_db(table_db(DELETIONS.number), create=False)
        with env.begin(write=True, db=table) as txn, txn.cursor() as cursor:
            assert cursor.last()
            key, value = cursor.item()
            txn.put(key, value[:-1] + bytes((value[-1] ^ 1,)))
