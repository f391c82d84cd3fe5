"""`letterlockd backup` and `restore`: the stores as they were at one time, whole or not at all.

    backup    snapshots of all stores ─▶ copies, checksums ─▶ manifest ─▶ renamed to its name
    restore   manifest, checksums, master keys ─▶ marker "restoring" ─▶ files ─▶ each store told
              that it went back ─▶ marker away; a failure takes everything back

A daemon may run during a backup. The gateway's snapshot is taken before the relay's, at most
moments apart: what the gateway still had to send then is known to both afterwards. Keys are not
in a backup unless asked for: with them, whoever has the backup reads it.

A restored store begins a new generation (see `store.history`): its owner sends nothing with what
may have been used since, and makes new what may be known to others.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from letterlockd import failpoints
from letterlockd.app.manifest import BackupFault, Manifest, StoredFile, checksum, read_manifest
from letterlockd.app.parts import SCHEMA_VERSION, open_store
from letterlockd.app.stores import STORES, present
from letterlockd.files import write_file
from letterlockd.layout import STORES_OF_KEY, Layout
from letterlockd.sealing.errors import MasterKeyFault
from letterlockd.sealing.keyring import CHECK_KEY, MASTER_CHECK, master_key_id
from letterlockd.sealing.provider import named_key, staged
from letterlockd.settings import Settings
from letterlockd.store.history import History
from letterlockd.store.lmdb.snapshot import Snapshot
from letterlockd.store.port import StoreFull

__all__ = ["backup", "restore"]

_KEY_FOLDERS = ("keys", "tls")


def backup(data: Path, destination: Path, *, with_keys: bool, program: str) -> Manifest:
    """Copy the stores of `data` to the new folder `destination`. Blocking; seconds per gigabyte.

    Raises `BackupFault`, and what a `Snapshot` raises; then nothing is left.
    """
    if destination.exists():
        raise BackupFault(f"{destination} exists: a backup is a new folder")
    names = present(data)
    if not names:
        raise BackupFault(f"{data} holds no store")
    if destination.resolve().is_relative_to(data.resolve()):
        raise BackupFault(
            f"destination: {destination} lies in the data folder {data}",
            field="destination",
        )
    aside = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.partial")
    try:
        aside.mkdir(mode=0o700)
        try:
            manifest = _copied(data, aside, names, with_keys=with_keys, program=program)
            write_file(aside / "manifest.json", manifest.text(), mode=0o600)
            failpoints.hit("backup.before_rename")
            aside.rename(destination)
            _sync(destination.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise BackupFault(f"{destination} cannot be made: {error.strerror}") from error
    return manifest


async def restore(settings: Settings, source: Path) -> Manifest:
    """Put the stores of a backup into the data folder, which must have none.

    Raises `BackupFault`, `MasterKeyFault` when a master key is there that does not open it, and
    what opening a store raises; then the folder is as it was. Killed half-way, the folder is
    refused by the daemon until a restore has finished there.
    """
    manifest = read_manifest(source)
    _check(manifest, source)
    layout = Layout(settings.data_folder)
    _refuse_used(layout, manifest)
    _check_keys(Layout(source) if manifest.with_keys else layout, manifest)
    with _taken_back_on_failure(layout, manifest):
        _put_files(layout, manifest, source)
        async with AsyncExitStack() as opened:
            for stored in manifest.stores:
                await _tell(settings, stored.store, opened)
        failpoints.hit("restore.before_finish")
        layout.restoring.unlink()
        _sync(layout.data)
    return manifest


def _copied(
    data: Path, aside: Path, names: Sequence[str], *, with_keys: bool, program: str
) -> Manifest:
    with ExitStack() as stack:
        snapshots = {name: stack.enter_context(Snapshot(data / name)) for name in names}
        made_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        stores = []
        for name, snapshot in snapshots.items():
            (aside / name).mkdir(mode=0o700)
            snapshot.copy(aside / name)
            stores.append(_stored(name, snapshot, aside / name / "data.mdb"))
            failpoints.hit("backup.copied")
    if with_keys:
        for name in _KEY_FOLDERS:
            if (data / name).exists():
                shutil.copytree(data / name, aside / name)
    return Manifest(program=program, made_at=made_at, with_keys=with_keys, stores=stores)


def _stored(name: str, snapshot: Snapshot, file: Path) -> StoredFile:
    file.chmod(0o600)
    _sync(file)
    check = snapshot.value(MASTER_CHECK.number, CHECK_KEY)
    return StoredFile(
        store=name,
        size=file.stat().st_size,
        sha256=checksum(file),
        schema=snapshot.schema,
        store_id=snapshot.store_id,
        position=snapshot.position,
        master_key_id="" if check is None else master_key_id(check),
    )


def _check(manifest: Manifest, source: Path) -> None:
    """Everything that can be known before a byte is written."""
    for stored in manifest.stores:
        file = source / stored.store / "data.mdb"
        if stored.store not in STORES:
            raise BackupFault(f"{source} holds a store of no known kind")
        if stored.schema > SCHEMA_VERSION:
            raise BackupFault(
                f"{source} has schema version {stored.schema}, this program knows {SCHEMA_VERSION}",
                reason="SCHEMA_TOO_NEW",
            )
        if not file.exists() or file.stat().st_size != stored.size:
            raise BackupFault(f"{file} is missing or has another size than the backup says")
        if checksum(file) != stored.sha256:
            raise BackupFault(f"{file} is damaged: its checksum is another one")


def _refuse_used(layout: Layout, manifest: Manifest) -> None:
    if layout.restoring.exists():
        return  # an earlier restore did not finish: it is done again
    if found := present(layout.data):
        raise BackupFault(f"{layout.data} holds a store already ({found[0]}): use an empty folder")
    if manifest.with_keys and layout.keys.exists():
        raise BackupFault(f"{layout.keys} exists, and the backup brings its own")


def _check_keys(layout: Layout, manifest: Manifest) -> None:
    """That the master keys which are there open the stores; one that is not may come later."""
    for role, names in STORES_OF_KEY.items():
        path = layout.master_key(role)
        there = {named_key(file)[1] for file in (path, staged(path)) if file.exists()}
        for stored in manifest.stores:
            wanted = stored.master_key_id
            if stored.store in names and wanted and there and wanted not in there:
                raise MasterKeyFault(
                    f"{path} is master key {', '.join(sorted(there))}; the backup's store "
                    f"{stored.store} needs {wanted}",
                    reason="MASTER_KEY_WRONG",
                )


@contextmanager
def _taken_back_on_failure(layout: Layout, manifest: Manifest) -> Iterator[None]:
    """Leave the folder as it was when the restore inside fails. What an earlier one left unfinished
    stays unfinished."""
    was_there, unfinished = layout.data.exists(), layout.restoring.exists()
    try:
        yield
    except BaseException as error:
        for path in _brought(layout, manifest):
            shutil.rmtree(path, ignore_errors=True)
        if not unfinished:
            layout.restoring.unlink(missing_ok=True)
        if not was_there and layout.data.exists():
            layout.data.rmdir()
        if isinstance(error, OSError):
            raise BackupFault(f"{layout.data} cannot be written: {error.strerror}") from error
        if isinstance(error, StoreFull):
            raise BackupFault(f"{layout.data} cannot be written: {error.message}") from error
        raise


def _brought(layout: Layout, manifest: Manifest) -> list[Path]:
    """The folders that a restore of this backup makes."""
    keys = _KEY_FOLDERS if manifest.with_keys else ()
    return [layout.data / name for name in (*(stored.store for stored in manifest.stores), *keys)]


def _put_files(layout: Layout, manifest: Manifest, source: Path) -> None:
    layout.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(layout.restoring, b"see docs/operations.md, backup\n", mode=0o600)
    for path in _brought(layout, manifest):
        shutil.rmtree(path, ignore_errors=True)
    for name in (stored.store for stored in manifest.stores):
        (layout.data / name).mkdir(mode=0o700)
        file = layout.data / name / "data.mdb"
        shutil.copyfile(source / name / "data.mdb", file)
        file.chmod(0o600)
        _sync(file)
        failpoints.hit("restore.copied")
    if manifest.with_keys:
        for name in _KEY_FOLDERS:
            if (source / name).exists():
                shutil.copytree(source / name, layout.data / name)


async def _tell(settings: Settings, name: str, opened: AsyncExitStack) -> None:
    store = await open_store(settings, name, STORES[name], opened, unfinished=True)
    history = await History.open(store, lambda: store.position)
    await history.went_back()


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
