"""Backup under load, restore, and a store that somebody copied back: the conversation goes on, and
no message key is used twice.

The user's devices are the judge of the last: a second use of a message key is a counter that they
have had, which the ratchet calls a duplicate and drops, so the text under it never arrives. Here
every text has to arrive.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from letterlock import BusinessClient, Device, MemoryStore, OutgoingMessage
from letterlockd.exit_codes import ExitCode

from tests.harness.people import (
    DELIVERED,
    Collected,
    Shop,
    new_device,
    next_message,
    open_shop,
    receiving,
    user,
)
from tests.harness.supervised import Daemon, daemon

pytestmark = pytest.mark.e2e

SHOP_NUMBER = "+15580000001"
ANA_NUMBER, BEN_NUMBER, CAT_NUMBER = "+15580000002", "+15580000003", "+15580000004"


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


class House:
    """A business and two users over several daemons in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "letterlock-data"
        self.ana, self.ben = MemoryStore(), MemoryStore()
        self.shop: Shop | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Daemon, Shop]]:
        async with daemon(self.folder) as running:
            if self.shop is None:
                self.shop = await open_shop(running, SHOP_NUMBER)
                async with user(running, ANA_NUMBER, store=self.ana):
                    pass
            self.shop = replace(self.shop, daemon=running)
            yield running, self.shop

    def set_aside(self, name: str) -> Path:
        """Take the stores away, as a disk that is lost; keys and certificates are elsewhere."""
        lost = self.folder / name
        lost.mkdir()
        for store in ("gateway", "registry", "relay"):
            (self.data / store).rename(lost / store)
        return lost


async def talk(shop: Shop, ana: Device, text: str) -> None:
    """A text each way, both read, and the first one's delivery told."""
    async with shop.client() as business, receiving(business) as events:
        accepted = await business.send(to=ANA_NUMBER, text=text)
        got = await next_message(ana)
        assert got.text == text
        await ana.send_text(got.sender, f"re: {text}")
        await events.until(lambda: f"re: {text}" in texts(events))
        await events.until(events.reached(accepted.message_id, DELIVERED))


def texts(events: Collected) -> list[str]:
    return [text for _, text in events.texts]


async def test_a_restored_gateway_goes_on_with_new_sessions(tmp_path: Path) -> None:
    """The backup is taken while messages flow; what comes after it is lost with the disk, but
    nothing that was in it, and nothing is encrypted under a used key."""
    house = House(tmp_path)
    async with house.open() as (running, shop), new_device(running, store=house.ana) as ana:
        await ana.connect()
        await talk(shop, ana, "before")
        await ana.send_text(SHOP_NUMBER, "not heard yet")
        async with user(running, BEN_NUMBER, store=house.ben, connect=False):
            pass
        async with shop.client() as business:
            await business.send(to=BEN_NUMBER, text="not read yet")
            sending = asyncio.create_task(_stream(business, 200))
            made = await letterlockd(tmp_path, "backup", "kept", "--data", str(house.data))
            assert made.returncode == 0, made.stderr
            await sending
        heard = [await next_message(ana) for _ in range(200)]
        assert len({message.text for message in heard}) == 200
        await talk(shop, ana, "after the backup")
    house.set_aside("lost")
    restored = await letterlockd(tmp_path, "restore", "kept")
    assert restored.returncode == 0, restored.stderr
    async with house.open() as (running, shop), new_device(running, store=house.ana) as ana:
        await ana.connect()
        async with shop.client() as business, receiving(business) as events:
            await events.until(lambda: "not heard yet" in texts(events))
        for n in range(5):
            await talk(shop, ana, f"restored {n}")
        async with (
            user(running, CAT_NUMBER) as cat,
            shop.client() as business,
            receiving(business) as events,
        ):
            await cat.send_text(SHOP_NUMBER, "I am new")
            await events.until(lambda: "I am new" in texts(events))
        async with new_device(running, store=house.ben) as ben:
            await ben.connect()
            assert (await next_message(ben)).text == "not read yet"
    for arguments in ((), ("--backup", "kept")):
        looked = await letterlockd(tmp_path, "verify", "--json", *arguments)
        assert looked.returncode == 0, looked.stdout + looked.stderr
        reports = json.loads(looked.stdout)
        assert {report["store"] for report in reports} == {"gateway", "registry", "relay"}
        assert all(report["seals_checked"] for report in reports)
        assert reports[0]["records"]["conversations"] >= 1
    again = await letterlockd(tmp_path, "restore", "kept")
    assert again.returncode == ExitCode.DATA_FOLDER
    assert "holds a store already" in again.stderr


async def test_a_gateway_store_that_was_copied_back_is_noticed(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.open() as (running, shop), new_device(running, store=house.ana) as ana:
        await ana.connect()
        await talk(shop, ana, "before")
    old = tmp_path / "old"
    shutil.copytree(house.data / "gateway", old)
    async with house.open() as (running, shop), new_device(running, store=house.ana) as ana:
        await ana.connect()
        for n in range(3):
            await talk(shop, ana, f"since then {n}")
        assert '"STORE_WENT_BACK"' not in running.text
    shutil.rmtree(house.data / "gateway")
    shutil.copytree(old, house.data / "gateway")
    async with house.open() as (running, shop), new_device(running, store=house.ana) as ana:
        await ana.connect()
        await running.logged(lambda entry: entry.get("reason") == "STORE_WENT_BACK")
        await running.whole()
        for n in range(3):
            await talk(shop, ana, f"noticed {n}")
    async with house.open() as (running, shop), new_device(running, store=house.ana) as ana:
        await ana.connect()
        await talk(shop, ana, "as ever")
        assert "STORE_WENT_BACK" not in running.text


async def test_a_relay_store_that_was_copied_back_is_noticed(tmp_path: Path) -> None:
    house = House(tmp_path)
    async with house.open() as (running, shop), new_device(running, store=house.ana) as ana:
        await ana.connect()
        await talk(shop, ana, "before")
    old = tmp_path / "old"
    shutil.copytree(house.data / "relay", old)
    async with house.open() as (running, shop), new_device(running, store=house.ana) as ana:
        await ana.connect()
        await talk(shop, ana, "since then")
        assert "STORE_WENT_BACK" not in running.text
    shutil.rmtree(house.data / "relay")
    shutil.copytree(old, house.data / "relay")
    async with house.open() as (running, shop), new_device(running, store=house.ana) as ana:
        await running.logged(
            lambda entry: entry.get("reason") == "STORE_WENT_BACK" and entry.get("role") == "relay"
        )
        await running.whole()
        await ana.connect()
        await talk(shop, ana, "noticed")
        looked = await letterlockd(tmp_path, "verify", "--json")
        assert looked.returncode == 0, looked.stdout + looked.stderr
        restorations = {each["store"]: each["restorations"] for each in json.loads(looked.stdout)}
        assert restorations == {"gateway": 0, "registry": 0, "relay": 1}
    async with house.open() as (running, shop), new_device(running, store=house.ana) as ana:
        await ana.connect()
        await talk(shop, ana, "as ever")
        assert "STORE_WENT_BACK" not in running.text


async def _stream(business: BusinessClient, count: int) -> None:
    messages = [OutgoingMessage(ANA_NUMBER, f"load {n}") for n in range(count)]
    async with business.send_many(messages) as stream:
        async for _ in stream:
            pass
