"""Backup, restore and verify of small stores: each bad input, each crash, each kind of damage."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from letterlockd import failpoints
from letterlockd.app.backup import backup, restore
from letterlockd.app.manifest import BackupFault, checksum
from letterlockd.app.parts import open_store
from letterlockd.app.stores import STORES
from letterlockd.app.verify import verify_one
from letterlockd.cli import main
from letterlockd.clock import SystemClock
from letterlockd.errors import EnvironmentFault
from letterlockd.exit_codes import ExitCode, of_error
from letterlockd.gateway.tables import LOOKUPS, OUTBOX, outbox_key
from letterlockd.layout import Layout
from letterlockd.sealing.errors import MasterKeyFault
from letterlockd.sealing.keyring import CHECK_KEY, DAY_MS, MASTER_CHECK, Keyring
from letterlockd.sealing.provider import FileKeyProvider, staged
from letterlockd.settings import Settings
from letterlockd.store.history import History
from letterlockd.store.lmdb.snapshot import Snapshot
from letterlockd.store.port import Delete, Put

BUSINESS = b"b" * 16
FAR_MS = 4_000_000_000_000


async def fill(settings: Settings) -> None:
    """A gateway's and a registry's store with keys of each kind and some rows."""
    provider = FileKeyProvider(Layout(settings.data_folder).master_key("gateway"))
    async with AsyncExitStack() as opened:
        for name in ("gateway", "registry"):
            store = await open_store(settings, name, STORES[name], opened)
            keyring = await Keyring.open(store, provider, SystemClock())
            for day in range(3):
                await keyring.day_key(BUSINESS, SystemClock().now_ms() + day * DAY_MS)
            if name == "gateway":
                rows = [Put(LOOKUPS, bytes([n]) * 48, b"p" * 16, FAR_MS) for n in range(200)]
                await store.commit([rows])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder and a backup of it, not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    settings = Settings(data_folder=folder / "data")
    asyncio.run(fill(settings))
    backup(folder / "data", folder / "kept", with_keys=False, program="test")
    return folder


@pytest.fixture
def kept(made: Path, tmp_path: Path) -> Path:
    """A backup that may be changed, beside an empty data folder that has the keys."""
    shutil.copytree(made / "kept", tmp_path / "kept")
    shutil.copytree(made / "data" / "keys", tmp_path / "data" / "keys")
    return tmp_path / "kept"


def settings_of(kept: Path) -> Settings:
    return Settings(data_folder=kept.parent / "data")


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "letterlockd", *arguments, "--data", "data"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def generation(settings: Settings, name: str) -> int:
    async with AsyncExitStack() as opened:
        store = await open_store(settings, name, STORES[name], opened)
        return (await History.open(store, lambda: store.position)).generation


async def test_a_backup_comes_back_as_a_new_generation(kept: Path) -> None:
    settings = settings_of(kept)
    manifest = await restore(settings, kept)
    assert [stored.store for stored in manifest.stores] == ["gateway", "registry"]
    key = FileKeyProvider(settings.data_folder / "keys" / "gateway.key")
    for stored in manifest.stores:
        assert stored.master_key_id == key.key_id
        found = await asyncio.to_thread(
            verify_one, settings, settings.data_folder, stored.store, seals=True
        )
        assert not found.wrong
        assert await generation(settings, stored.store) == 1
    assert not (settings.data_folder / "restoring").exists()
    assert {path.name for path in settings.data_folder.iterdir()} == {"gateway", "registry", "keys"}


@pytest.mark.parametrize("inside", ["bk", "gateway/bk", "../data/bk", "../link/bk"])
def test_a_backup_inside_the_data_folder_is_refused(
    made: Path, tmp_path: Path, inside: str
) -> None:
    shutil.copytree(made / "data", tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BackupFault, match=r"destination: .* lies in the data folder") as refused:
        backup(tmp_path / "data", tmp_path / "data" / inside, with_keys=False, program="test")
    assert refused.value.metadata == {"field": "destination"}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_backup_has_no_key_and_no_free_page_unless_asked(made: Path, tmp_path: Path) -> None:
    assert {path.name for path in (made / "kept").iterdir()} == {
        "gateway",
        "registry",
        "manifest.json",
    }
    backup(made / "data", tmp_path / "with", with_keys=True, program="test")
    copied = tmp_path / "with" / "keys" / "gateway.key"
    assert copied.read_bytes() == (made / "data" / "keys" / "gateway.key").read_bytes()
    with Snapshot(made / "data" / "gateway") as snapshot:
        assert snapshot.kind == "gateway"
        assert snapshot.position > 1


def test_a_backup_is_a_new_folder_of_a_data_folder(made: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupFault, match="exists"):
        backup(made / "data", made / "kept", with_keys=False, program="test")
    with pytest.raises(BackupFault, match="holds no store"):
        backup(tmp_path, tmp_path / "new", with_keys=False, program="test")
    with pytest.raises(BackupFault, match="cannot be made"):
        backup(made / "data", tmp_path / "no" / "where", with_keys=False, program="test")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("point", ["backup.copied", "backup.before_rename"])
def test_a_backup_that_fails_leaves_nothing(made: Path, tmp_path: Path, point: str) -> None:
    failpoints.configure(f"{point}=error")
    try:
        with pytest.raises(failpoints.InjectedFault):
            backup(made / "data", tmp_path / "new", with_keys=True, program="test")
    finally:
        failpoints.configure("")
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_is_killed_has_no_name(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "data", tmp_path / "data")
    killed = command(tmp_path, "backup", "new", LETTERLOCK_FAILPOINTS="backup.before_rename=kill")
    assert killed.returncode == -9
    assert not (tmp_path / "new").exists()
    done = command(tmp_path, "backup", "new")
    assert done.returncode == 0, done.stderr
    assert "not in it: keys/" in done.stdout


def fails_on_a_full_disk(folder: Path, blocks: int, arguments: str) -> None:
    """Run where no file may have more than so many KiB."""
    limited = f"ulimit -f {blocks}; exec {sys.executable} -m letterlockd {arguments} --data data"
    ran = subprocess.run(
        ["bash", "-c", limited], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == ExitCode.DATA_FOLDER, ran.stderr
    assert "cannot be written" in ran.stderr


def test_a_full_disk_ends_a_backup_cleanly(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "data", tmp_path / "data")
    fails_on_a_full_disk(tmp_path, 16, "backup new")
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def truncate(kept: Path) -> None:
    os.truncate(kept / "gateway" / "data.mdb", 8_192)


def flip(kept: Path) -> None:
    file = kept / "gateway" / "data.mdb"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def lose(kept: Path) -> None:
    (kept / "registry" / "data.mdb").unlink()


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(kept: Path) -> None:
        said = json.loads((kept / "manifest.json").read_bytes())
        change(said)
        (kept / "manifest.json").write_text(json.dumps(said))

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "another size"),
        (flip, "checksum"),
        (lose, "missing"),
        (lambda kept: (kept / "manifest.json").unlink(), "cannot be read"),
        (lambda kept: (kept / "manifest.json").write_text("{"), "damaged"),
        (lambda kept: (kept / "manifest.json").write_text("[]"), "damaged"),
        (changed(lambda said: said.update(format=2)), "does not know"),
        (changed(lambda said: said.update(extra=1)), "damaged"),
        (changed(lambda said: said.pop("stores")), "damaged"),
        (changed(lambda said: said.update(stores=[])), "damaged"),
        (changed(lambda said: said["stores"][0].update(store="../../etc")), "damaged"),
        (changed(lambda said: said["stores"][0].update(store="other")), "no known kind"),
        (changed(lambda said: said["stores"][0].update(size="big")), "damaged"),
        (changed(lambda said: said["stores"][0].update(schema=99)), "schema version 99"),
    ],
)
async def test_what_is_no_whole_backup_is_refused_before_a_byte_is_written(
    kept: Path, damage: Callable[[Path], None], says: str
) -> None:
    damage(kept)
    settings = settings_of(kept)
    with pytest.raises(BackupFault, match=says):
        await restore(settings, kept)
    assert {path.name for path in settings.data_folder.iterdir()} == {"keys"}


async def test_a_master_key_that_does_not_open_it_is_refused_before_a_byte_is_written(
    made: Path, kept: Path
) -> None:
    key = kept.parent / "data" / "keys" / "gateway.key"
    key.unlink()
    other = FileKeyProvider(key)
    ran = await asyncio.to_thread(command, kept.parent, "restore", "kept")
    assert ran.returncode == ExitCode.KEYS, ran.stderr
    assert other.key_id in ran.stderr
    assert {path.name for path in (kept.parent / "data").iterdir()} == {"keys"}
    shutil.copyfile(made / "data" / "keys" / "gateway.key", staged(key))  # a rotation is under way
    staged(key).chmod(0o600)
    await restore(settings_of(kept), kept)


async def test_a_backup_whose_own_key_is_another_is_refused(made: Path, tmp_path: Path) -> None:
    backup(made / "data", tmp_path / "with", with_keys=True, program="test")
    key = tmp_path / "with" / "keys" / "gateway.key"
    key.unlink()
    FileKeyProvider(key)
    with pytest.raises(MasterKeyFault) as caught:
        await restore(Settings(data_folder=tmp_path / "data"), tmp_path / "with")
    assert caught.value.reason == "MASTER_KEY_WRONG"
    assert not (tmp_path / "data").exists()


async def test_a_restore_needs_no_master_key_to_be_there(kept: Path) -> None:
    shutil.rmtree(kept.parent / "data")
    await restore(settings_of(kept), kept)
    assert await generation(settings_of(kept), "gateway") == 1


@pytest.mark.parametrize(
    ("arguments", "lost"),
    [
        (["serve"], "gateway"),
        (["init"], "gateway"),
        (["gateway"], "gateway"),
        (["relay"], "relay"),
        (["keys", "status"], "gateway"),
        (["keys", "rotate"], "gateway"),
    ],
)
def test_a_store_whose_master_key_is_missing_gets_no_new_one(
    tmp_path: Path, arguments: list[str], lost: str
) -> None:
    for store in ("gateway", "registry", "relay"):
        (tmp_path / "data" / store).mkdir(parents=True)
        (tmp_path / "data" / store / "data.mdb").touch()
    if lost == "relay":
        FileKeyProvider(Layout(tmp_path / "data").master_key("gateway"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    ran = command(tmp_path, *arguments)
    assert ran.returncode == ExitCode.KEYS
    assert f"{lost}.key is missing" in ran.stderr
    assert "put the file back" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_restore_says_what_the_start_still_needs(kept: Path) -> None:
    data = settings_of(kept).data_folder
    (data / "keys").rename(kept.parent / "elsewhere")
    ran = command(kept.parent, "restore", "kept")
    assert ran.stdout.endswith("put the original's files there: data/keys and data/tls\n")
    shutil.rmtree(data)
    shutil.copytree(kept.parent / "elsewhere", data / "keys")
    ran = command(kept.parent, "restore", "kept")
    assert ran.stdout.endswith("put the original's files there: data/tls\n")
    for store in ("gateway", "registry"):
        shutil.rmtree(data / store)
    (data / "tls").mkdir()
    (data / "tls" / "ca.crt").touch()
    ran = command(kept.parent, "restore", "kept")
    assert "before the start" not in ran.stdout
    assert ran.returncode == 0


@pytest.mark.parametrize("with_keys", [False, True])
@pytest.mark.parametrize("copied", [False, True])
def test_a_full_disk_ends_a_restore_with_the_folder_as_it_was(
    made: Path, tmp_path: Path, with_keys: bool, copied: bool
) -> None:
    """While the files are copied, and behind that, when the stores are told."""
    backup(made / "data", tmp_path / "kept", with_keys=with_keys, program="test")
    largest = max(file.stat().st_size for file in (tmp_path / "kept").rglob("data.mdb"))
    blocks = -(-largest // 1_024) if copied else 16
    fails_on_a_full_disk(tmp_path, blocks, "restore kept")
    assert {path.name for path in tmp_path.iterdir()} == {"kept"}
    done = command(tmp_path, "restore", "kept")
    assert done.returncode == 0, done.stderr


async def test_a_failed_restore_leaves_an_unfinished_one_unfinished(kept: Path) -> None:
    folder, settings = kept.parent, settings_of(kept)
    environment = {failpoints.VARIABLE: "restore.copied=kill"}
    await asyncio.to_thread(command, folder, "restore", "kept", **environment)
    failpoints.configure("restore.before_finish=error")
    try:
        with pytest.raises(failpoints.InjectedFault):
            await restore(settings, kept)
    finally:
        failpoints.configure("")
    assert {path.name for path in settings.data_folder.iterdir()} == {"keys", "restoring"}


async def test_a_store_of_another_kind_under_a_good_checksum_is_refused(kept: Path) -> None:
    said = json.loads((kept / "manifest.json").read_bytes())
    file = kept / "registry" / "data.mdb"
    shutil.copyfile(kept / "gateway" / "data.mdb", file)
    said["stores"][1].update(size=file.stat().st_size, sha256=checksum(file))
    (kept / "manifest.json").write_text(json.dumps(said))
    with pytest.raises(EnvironmentFault) as caught:
        await restore(settings_of(kept), kept)
    assert caught.value.reason == "DATA_FOLDER_FOREIGN"
    assert {path.name for path in (kept.parent / "data").iterdir()} == {"keys"}


@pytest.mark.parametrize("point", ["restore.copied", "restore.before_finish"])
async def test_a_restore_that_is_killed_is_refused_until_done_again(kept: Path, point: str) -> None:
    folder, settings = kept.parent, settings_of(kept)
    environment = {failpoints.VARIABLE: f"{point}=kill"}
    killed = await asyncio.to_thread(command, folder, "restore", "kept", **environment)
    assert killed.returncode == -9
    with pytest.raises(EnvironmentFault, match="was not finished") as caught:
        await generation(settings, "gateway")
    assert of_error(caught.value) == ExitCode.DATA_FOLDER
    await restore(settings, kept)
    assert await generation(settings, "gateway") == 1


async def test_a_folder_with_a_store_is_not_restored_into(kept: Path) -> None:
    settings = settings_of(kept)
    await restore(settings, kept)
    with pytest.raises(BackupFault, match="holds a store already"):
        await restore(settings, kept)


async def test_a_backup_that_brings_keys_does_not_replace_keys(made: Path, kept: Path) -> None:
    backup(made / "data", kept.parent / "with", with_keys=True, program="test")
    with pytest.raises(BackupFault, match="brings its own"):
        await restore(settings_of(kept), kept.parent / "with")


async def test_the_wrong_master_key_is_told_apart_from_damage(kept: Path) -> None:
    settings = settings_of(kept)
    await restore(settings, kept)
    key = settings.data_folder / "keys" / "gateway.key"
    key.unlink()
    FileKeyProvider(key)
    look = functools.partial(verify_one, settings, settings.data_folder, "gateway")
    ran = await asyncio.to_thread(command, kept.parent, "verify")
    assert ran.returncode == ExitCode.KEYS, ran.stdout + ran.stderr
    key.unlink()
    with pytest.raises(EnvironmentFault, match="does not exist") as caught:
        await asyncio.to_thread(look, seals=True)
    assert of_error(caught.value) == ExitCode.KEYS
    found = await asyncio.to_thread(look, seals=False)
    assert not found.wrong
    assert "seals not checked: good" in found.lines()[0]


@pytest.mark.parametrize("how", ["gone", "altered"])
async def test_a_lost_binding_to_the_master_key_is_damage(kept: Path, how: str) -> None:
    settings = settings_of(kept)
    await restore(settings, kept)
    async with AsyncExitStack() as opened:
        store = await open_store(settings, "gateway", STORES["gateway"], opened)
        row = await store.get(MASTER_CHECK, CHECK_KEY)
        assert row is not None
        altered = Put(MASTER_CHECK, CHECK_KEY, row.value[:20] + b"?" + row.value[21:])
        await store.commit([[altered if how == "altered" else Delete(MASTER_CHECK, CHECK_KEY)]])
    ran = await asyncio.to_thread(command, kept.parent, "verify", "--json")
    assert ran.returncode == ExitCode.DAMAGED, ran.stdout + ran.stderr
    damaged, good = json.loads(ran.stdout)
    assert damaged["wrong"] == {"master-check: the binding to the master key is lost": 1}
    assert not good["wrong"]


def day_key_bytes(data: Path) -> bytes:
    """The last bytes of a day key's record, which is sealed."""
    from letterlockd.sealing.keyring import DAY_KEYS
    from letterlockd.store.lmdb.reader import Reader

    reader = Reader(data / "gateway", [DAY_KEYS])
    ((_, record), *_), _ = reader.scan(DAY_KEYS.number, b"", b"", 10)
    reader.close()
    return record.value[-32:]


def test_a_flipped_bit_in_a_seal_is_found(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "data", tmp_path / "data")
    file = tmp_path / "data" / "gateway" / "data.mdb"
    content = bytearray(file.read_bytes())
    sealed = day_key_bytes(made / "data")
    places = [at for at in range(len(content)) if content.startswith(sealed, at)]
    assert places
    for at in places:
        content[at] ^= 4
    file.write_bytes(content)
    ran = command(tmp_path, "verify", "--json")
    assert ran.returncode == ExitCode.DAMAGED, ran.stderr
    assert json.loads(ran.stdout)[0]["wrong"] == {"day-keys: seal does not open": 1}


@pytest.mark.parametrize("torn", [bytes(4_096), b"\x00\xff" * 1_024])
def test_torn_pages_are_found_and_never_end_the_report(
    made: Path, tmp_path: Path, torn: bytes
) -> None:
    shutil.copytree(made / "data", tmp_path / "data")
    file = tmp_path / "data" / "gateway" / "data.mdb"
    content = bytearray(file.read_bytes())
    for page in range(2, len(content) // 4_096):
        content[page * 4_096 : page * 4_096 + len(torn)] = torn
    file.write_bytes(content)
    ran = command(tmp_path, "verify", "--json")
    assert ran.returncode == ExitCode.DAMAGED, ran.stdout + ran.stderr
    damaged, good = json.loads(ran.stdout)
    assert damaged["wrong"]
    assert not good["wrong"]


async def test_a_number_that_is_still_to_be_given_is_found(kept: Path) -> None:
    settings = settings_of(kept)
    await restore(settings, kept)
    async with AsyncExitStack() as opened:
        store = await open_store(settings, "gateway", STORES["gateway"], opened)
        first = await store.reserve(OUTBOX.name, 10)
        await store.commit([[Put(OUTBOX, outbox_key(first + 10), b"", FAR_MS)]])
    found = await asyncio.to_thread(
        verify_one, settings, settings.data_folder, "gateway", seals=False
    )
    assert found.wrong == {"outbox: a number that the sequence is still to give": 1}


def ended_by_ctrl_c(monkeypatch: pytest.MonkeyPatch, point: str, *arguments: str | Path) -> None:
    """Run a command in which Ctrl-C comes at this point."""

    def hit(name: str) -> None:
        if name == point:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(failpoints, "hit", hit)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    try:
        ran = CliRunner().invoke(main, [str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ran.exit_code, ran.output) == (
        ExitCode.INTERRUPTED,
        "letterlockd: ended by Ctrl-C\n",
    )


@pytest.mark.parametrize("point", ["backup.copied", "backup.before_rename"])
def test_a_backup_ended_by_ctrl_c_leaves_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    new = tmp_path / "new"
    ended_by_ctrl_c(monkeypatch, point, "backup", new, "--with-keys", "--data", made / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_restore_ended_by_ctrl_c_leaves_the_folder_as_it_was(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = kept.parent / "data"
    ended_by_ctrl_c(monkeypatch, "restore.copied", "restore", kept, "--data", data)
    assert {path.name for path in data.iterdir()} == {"keys"}
    monkeypatch.undo()
    done = command(kept.parent, "restore", "kept")
    assert done.returncode == 0, done.stderr


def test_verify_ended_by_ctrl_c_says_so_once(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its child is not of the group that a terminal sends Ctrl-C to, or it would speak, too."""

    def run(*arguments: object, process_group: int, **options: object) -> None:
        assert process_group == 0
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", run)
    ran = CliRunner().invoke(main, ["verify", "--no-seals", "--data", str(made / "data")])
    assert (ran.exit_code, ran.output) == (
        ExitCode.INTERRUPTED,
        "letterlockd: ended by Ctrl-C\n",
    )
