"""Master keys through the real command: protections, rotation with and without a daemon."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from letterlock import Device, MemoryStore
from letterlockd import failpoints
from letterlockd.exit_codes import ExitCode

from tests.harness.people import Shop, new_device, next_message, open_shop, receiving, user
from tests.harness.supervised import daemon

pytestmark = pytest.mark.e2e

ROLES = ("gateway", "relay")
SECRET = "correct horse battery"
SHOP_NUMBER, ANA_NUMBER = "+15570000001", "+15570000002"


def letterlockd(folder: Path, *arguments: str, piped: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "letterlockd", *arguments],
        cwd=folder,
        input=piped,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def key_files(folder: Path) -> dict[str, bytes]:
    keys = folder / "letterlock-data" / "keys"
    return {role: (keys / f"{role}.key").read_bytes() for role in ROLES}


def status(folder: Path) -> dict[str, Any]:
    ran = letterlockd(folder, "keys", "status", "--json")
    assert ran.returncode == 0, ran.stderr
    return {found["role"]: found for found in json.loads(ran.stdout)}


def under_passphrase(folder: Path, secret: str) -> list[str]:
    file = folder / "passphrase"
    file.write_text(f"{secret}\n")
    return [
        *("--set", "keys.protection=passphrase"),
        *("--set", f"keys.passphrase_from=file:{file}"),
    ]


async def converse(shop: Shop, ana: Device) -> None:
    """A message each way."""
    async with shop.client() as business, receiving(business) as events:
        await business.send(to=ANA_NUMBER, text="Good morning")
        message = await next_message(ana)
        await ana.send_text(message.sender, "Good evening")
        await events.until(lambda: bool(events.texts))


async def rotate(folder: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(letterlockd, folder, "keys", "rotate", *settings)


async def test_master_keys_turn_while_messages_flow(tmp_path: Path) -> None:
    """From clear to passphrase to new keys, with and without a daemon, through a crash; the
    conversation goes on and no old key opens anything."""
    armed = tmp_path / "armed"
    armed.mkdir()
    points = ("sealing.rotate.scope", "sealing.rotate.before_replace")
    environment = {
        failpoints.VARIABLE: ";".join(f"{point}=kill" for point in points),
        failpoints.ARMED_VARIABLE: str(armed),
    }
    settings = under_passphrase(tmp_path, SECRET)
    async with daemon(tmp_path, environment=environment) as running:
        shop = await open_shop(running, SHOP_NUMBER)
        async with user(running, ANA_NUMBER, store=(kept := MemoryStore())) as ana:
            await converse(shop, ana)
            in_clear = key_files(tmp_path)
            before = status(tmp_path)
            done = await rotate(tmp_path)
            assert done.returncode == 0, done.stderr
            assert done.stdout.count("by the running daemon, kept as file, as before\n") == 2
            assert done.stdout.endswith("backups made before need the former key\n")
            await converse(shop, ana)
            for point in points:
                (armed / point).touch()
                place = len(running.entries)
                done = await rotate(tmp_path)
                assert done.returncode == 0, done.stderr
                assert not (armed / point).exists()
                await running.logged(lambda entry: entry["event"] == "role_ready", after=place)
            await running.whole()
            await converse(shop, ana)
    after = status(tmp_path)
    assert {found["protection"] for found in after.values()} == {"file"}
    for role in ROLES:
        assert after[role]["key_id"] != before[role]["key_id"]
        assert not after[role]["rotation_open"]
        assert {store["bound_to"] for store in after[role]["stores"]} == {after[role]["key_id"]}
    assert after["gateway"]["stores"][1]["day_keys"] > 0

    assert (await rotate(tmp_path, *settings)).returncode == 0
    sealed = key_files(tmp_path)
    assert all(b"passphrase" in text for text in sealed.values())
    wrong = under_passphrase(tmp_path, "another passphrase")
    for arguments, code in ((wrong, ExitCode.KEYS), ([], ExitCode.KEYS)):
        ran = await asyncio.to_thread(letterlockd, tmp_path, "gateway", *arguments)
        assert (ran.returncode, "passphrase" in ran.stderr) == (code, True), ran.stderr
        ran = await rotate(tmp_path, *arguments)
        assert (ran.returncode, "passphrase" in ran.stderr) == (code, True), ran.stderr
    assert key_files(tmp_path) == sealed

    under_passphrase(tmp_path, SECRET)
    async with (
        daemon(tmp_path, *settings) as running,
        new_device(running, store=kept) as ana,
    ):
        await ana.connect()
        await converse(replace(shop, daemon=running), ana)

    keys = tmp_path / "letterlock-data" / "keys"
    for role in ROLES:
        (keys / f"{role}.key").write_bytes(in_clear[role])
        ran = await asyncio.to_thread(letterlockd, tmp_path, role)
        assert ran.returncode == ExitCode.KEYS, ran.stderr
        assert "was sealed with master key" in ran.stderr


async def test_a_passphrase_comes_through_a_file_descriptor(tmp_path: Path) -> None:
    """As `letterlockd serve --set keys.passphrase_from=fd:3 3< <(pass show letterlock)` does; also
    for a role that is started again after the descriptor was read."""
    given, give = os.pipe()
    os.write(give, SECRET.encode() + b"\n")
    os.close(give)
    settings = ("keys.protection=passphrase", f"keys.passphrase_from=fd:{given}")
    arguments = [part for setting in settings for part in ("--set", setting)]
    os.set_inheritable(given, True)
    async with daemon(tmp_path, *arguments, pass_fds=(given,)) as running:
        os.close(given)
        await running.kill("gateway")
        assert SECRET not in running.text
    ran = letterlockd(tmp_path, "keys", "rotate", *under_passphrase(tmp_path, SECRET))
    assert ran.returncode == 0, ran.stderr
