"""Pages of a store that were torn, flipped, cut off or written to another's place: `verify` finds
them, or they did no harm; and in no case does anybody read something else than what was written."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from letterlock import MemoryStore
from letterlock.device.events import IncomingMessage
from letterlockd.exit_codes import ExitCode

from tests.harness.people import WAIT_SECONDS, Shop, new_device, open_shop, user
from tests.harness.supervised import Daemon, daemon

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]

SHOP, ANA, BEN = "+15580000001", "+15580000002", "+15580000003"
EACH = 30
ANSWERS = {f"answer {n}" for n in range(EACH)}
OFFERS = {f"offer {n}" for n in range(EACH)}
PAGE = 4096
META_PAGES = 2


@dataclass
class Stopped:
    """A daemon's folder after it was stopped, with messages waiting on both sides."""

    folder: Path
    shop: Shop
    ben: dict[bytes, bytes]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stopped(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    folder = tmp_path_factory.mktemp("whole")
    store = MemoryStore()
    async with daemon(folder) as running:
        shop = await open_shop(running, SHOP)
        async with user(running, BEN, store=store, connect=False):
            pass
        async with shop.client() as business, user(running, ANA) as ana:
            for offer in sorted(OFFERS):
                await business.send(to=BEN, text=offer)
            for answer in sorted(ANSWERS):
                await ana.send_text(SHOP, answer)
        assert await running.stop() == ExitCode.OK
    return Stopped(folder, shop, dict(store.rows))


def flipped(pages: list[bytearray], seed: random.Random) -> None:
    """One bit in each of some pages, as a bad cell or cable does."""
    for page in seed.sample(pages, len(pages) // 4):
        page[seed.randrange(PAGE)] ^= 1 << seed.randrange(8)


def torn(pages: list[bytearray], seed: random.Random) -> None:
    """The second half of some pages was never written."""
    for page in seed.sample(pages, len(pages) // 4):
        page[PAGE // 2 :] = bytes(PAGE // 2)


def misdirected(pages: list[bytearray], seed: random.Random) -> None:
    """A page was written to another's place."""
    for _ in range(3):
        source, target = seed.sample(pages, 2)
        target[:] = source


def cut_off(pages: list[bytearray], seed: random.Random) -> None:
    """The file's end is gone."""
    del pages[-len(pages) // 3 :]


@pytest.mark.parametrize(
    ("store", "damage"),
    [
        ("gateway", flipped),
        ("gateway", torn),
        ("relay", flipped),
        ("relay", torn),
        ("registry", misdirected),
        ("gateway", cut_off),
    ],
)
async def test_damage_is_found_or_harmless_and_nothing_wrong_is_read(
    stopped: Stopped,
    tmp_path: Path,
    store: str,
    damage: Callable[[list[bytearray], random.Random], None],
) -> None:
    shutil.copytree(stopped.folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "letterlock-data" / store / "data.mdb"
    content = file.read_bytes()
    pages = [bytearray(content[at : at + PAGE]) for at in range(0, len(content), PAGE)]
    used = [page for page in pages[META_PAGES:] if any(page)]
    damage(used, random.Random(f"{store} {damage.__name__}"))
    if len(used) < sum(any(page) for page in pages[META_PAGES:]):
        pages = pages[: META_PAGES + len(used)]
    file.write_bytes(b"".join(pages))
    verdict = _verify(tmp_path)
    heard, read = await _served(stopped, tmp_path, patient=verdict == ExitCode.OK)
    assert heard <= ANSWERS
    assert read <= OFFERS
    if verdict == ExitCode.OK:
        assert (heard, read) == (ANSWERS, OFFERS)


_VERDICTS = {ExitCode.OK, ExitCode.DAMAGED, ExitCode.DATA_FOLDER, ExitCode.KEYS}
"""The last two: not even the store's head, or its binding to a master key, is there any more."""


def _verify(folder: Path) -> int:
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "letterlockd", "verify", "--data", "letterlock-data"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in _VERDICTS, ran.stderr
    return ran.returncode


async def _served(stopped: Stopped, folder: Path, *, patient: bool) -> tuple[set[str], set[str]]:
    """What a daemon on this folder gives to the business and to Ben."""
    heard: set[str] = set()
    read: set[str] = set()
    with contextlib.suppress(AssertionError):  # it may refuse to start
        async with daemon(folder, "--set", "serve.max_restarts=0") as running:
            with contextlib.suppress(TimeoutError, ExceptionGroup):
                async with asyncio.timeout(WAIT_SECONDS if patient else 3):
                    async with asyncio.TaskGroup() as both:
                        both.create_task(_hear(stopped, running, heard))
                        both.create_task(_read(stopped, running, read))
    return heard, read


async def _hear(stopped: Stopped, running: Daemon, heard: set[str]) -> None:
    shop = replace(stopped.shop, daemon=running)
    async with shop.client() as business, business.receive() as events:
        async for event in events:
            event.ack()
            if event.message is not None:
                heard.add(event.text or "")
            if len(heard) == EACH:
                return


async def _read(stopped: Stopped, running: Daemon, read: set[str]) -> None:
    store = MemoryStore()
    store.rows = dict(stopped.ben)
    async with new_device(running, store=store) as ben:
        async for event in ben.events():
            if isinstance(event, IncomingMessage):
                event.ack()
                read.add(event.text or "")
            if len(read) == EACH:
                return
