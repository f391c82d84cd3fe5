"""A device without space, for real: a tmpfs of 2 MiB under the store."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.store.lmdb.verify import verify
from letterlockd.store.port import Put, StoreFull, Table

pytestmark = pytest.mark.faults

LETTERS = Table("letters", 10, expires=True)
VALUE = bytes(5_000)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "letterlock-test", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


async def _fill(store: LmdbStore, start: int) -> int:
    """Put letters until the device is full; returns the number of the one that was refused."""
    number = start
    while True:
        try:
            await store.commit([[Put(LETTERS, b"%06d" % number, VALUE, 1_000 + number)]])
        except StoreFull:
            return number
        number += 1


async def test_full_device_refuses_whole_calls_and_recovers_after_sweeping(device: Path) -> None:
    folder = device / "store"
    store = await LmdbStore.open(folder, [LETTERS], kind="test", schema_version=1)
    refused = await _fill(store, 0)
    assert refused > 50
    assert await store.count(LETTERS) == refused
    with pytest.raises(StoreFull):
        await store.commit([[Put(LETTERS, b"x%d" % n, VALUE, 1)] for n in range(20)])
    assert await store.count(LETTERS) == refused

    removed, more = 0, True
    while more:
        swept = await store.sweep(1_000 + refused // 2, limit=1_000)
        removed += dict(swept.removed).get("letters", 0)
        more = swept.more
    assert removed == refused // 2 + 1
    assert await _fill(store, refused) > refused + 20

    left = await store.count(LETTERS)
    await store.aclose()
    report = verify(folder)
    assert (report.records, report.differences) == (left, [])


async def test_space_that_somebody_else_took_and_gave_back(device: Path) -> None:
    store = await LmdbStore.open(device / "store", [LETTERS], kind="test", schema_version=1)
    ballast = device / "ballast"
    ballast.write_bytes(bytes(1_200_000))
    refused = await _fill(store, 0)
    ballast.unlink()
    assert await store.commit([[Put(LETTERS, b"%06d" % refused, VALUE, 1)]]) == [None]
    assert await _fill(store, refused + 1) > refused + 100
    await store.aclose()
    assert verify(device / "store").differences == []
