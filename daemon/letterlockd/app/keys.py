"""`letterlockd keys`: what the master keys are, and their rotation with or without a daemon.

    stage <key>.next ──stores free──▶ rotate here
                     └─a daemon has them──▶ wait until it has done it

Both ways are the same code (`sealing.rotation`), and either finishes what the other began.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from letterlockd.app.parts import open_store, protections_of
from letterlockd.app.stores import STORES, existing, present
from letterlockd.clock import SystemClock
from letterlockd.config import ConfigFault
from letterlockd.errors import EnvironmentFault
from letterlockd.layout import STORES_OF_KEY, Layout, refuse_lost_keys
from letterlockd.sealing import keyring
from letterlockd.sealing.errors import MasterKeyFault
from letterlockd.sealing.keyring import DAY_MS, Keyring, master_key_id
from letterlockd.sealing.provider import FileKeyProvider, make_key, named_key, staged
from letterlockd.sealing.rotation import MasterRotation, open_master_keys
from letterlockd.settings import Settings
from letterlockd.store.lmdb.reader import Reader

__all__ = ["KeyStatus", "StoreStatus", "rotate", "status"]

_LOOK_SECONDS = 0.2
_NEXT = "copy keys/ to where you keep it again; backups made before need the former key"
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """One store: whose it is, and how many keys it has. Days are dates of expiry, or empty."""

    name: str
    bound_to: str
    scope_keys: int
    day_keys: int
    first_day: str
    last_day: str

    @property
    def days(self) -> str:
        """From when to when the day keys are, for people; empty when there are none."""
        return f" ({self.first_day} to {self.last_day})" if self.day_keys else ""


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One master key file. `key_id` is empty when the file does not tell it."""

    role: str
    file: str
    protection: str
    key_id: str
    rotation_open: bool
    stores: list[StoreStatus]

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        turning = ", a rotation is not finished" if self.rotation_open else ""
        return [
            f"{self.file}: {self.protection}, key {self.key_id}{turning}",
            *(
                f"  {store.name}: bound to key {store.bound_to}, scope keys: {store.scope_keys}, "
                f"day keys: {store.day_keys}{store.days}"
                for store in self.stores
            ),
        ]


def status(settings: Settings) -> list[KeyStatus]:
    """Every master key of this data folder. Reads only; a daemon may be running. Raises
    `EnvironmentFault` where there is no store, `MasterKeyFault` where a store's key is missing."""
    layout = Layout(settings.data_folder)
    refuse_lost_keys(layout)
    roles = [role for role in STORES_OF_KEY if layout.master_key(role).exists()]
    if not roles:
        existing(layout.data)  # raises: no store has lost its key, so there is none
    return [_status_of(layout, role) for role in roles]


async def rotate(settings: Settings, *, wait_seconds: float, new_passphrase_from: str) -> list[str]:
    """Rotate every master key of this data folder; what was done, for people.

    Raises `MasterKeyFault`; `ConfigFault` when a key that was staged before is kept in another way
    than the settings say; `EnvironmentFault` with ROTATION_WAITS when a running daemon has not
    taken it up in time (it does later), and with what opening a store raises.
    """
    layout = Layout(settings.data_folder)
    refuse_lost_keys(layout)
    paths = {role: layout.master_key(role) for role in STORES_OF_KEY}
    if not any(path.exists() for path in paths.values()):
        raise MasterKeyFault(f"{layout.keys} holds no master key: `letterlockd serve` makes them")
    for path in paths.values():
        _refuse_kept_otherwise(staged(path), settings.keys.protection)
    told = []
    for role, path in paths.items():
        if path.exists():
            before, _ = named_key(path)
            by = await _rotate_one(settings, role, path, wait_seconds, new_passphrase_from)
            told.append(_told(path, before, by))
    return [*told, _NEXT]


def _told(path: Path, before: str, by: str) -> str:
    """One line: the way from a passphrase to a key in clear must not pass unseen."""
    protection, name = named_key(path)
    kept = ", as before" if protection == before else f" (before: {before})"
    return f"{path} is now key {name}{by}, kept as {protection}{kept}"


def _refuse_kept_otherwise(path: Path, protection: str) -> None:
    """A staged key is what an unfinished rotation goes on with: were it in clear, it would stay so
    though the settings ask for a passphrase."""
    if path.exists() and (kept := named_key(path)[0]) != protection:
        raise ConfigFault(
            f"keys.protection is {protection}, but {path} of a rotation that is not finished has "
            f"{kept}: finish it with keys.protection = {kept}, then rotate again"
        )


async def _rotate_one(
    settings: Settings, role: str, path: Path, wait_seconds: float, new_passphrase_from: str
) -> str:
    """Returns by whom it was done, when not here."""
    protections = protections_of(settings)
    renamed = settings.keys.model_copy(update={"passphrase_from": new_passphrase_from})
    following = protections_of(settings.model_copy(update={"keys": renamed}))
    async with AsyncExitStack() as opened:
        try:
            stores = [
                await open_store(settings, name, STORES[name], opened, lock_wait_seconds=0)
                for name in STORES_OF_KEY[role]
                if name in present(settings.data_folder)
            ]
        except EnvironmentFault as fault:
            if fault.reason != "DATA_FOLDER_LOCKED":
                raise
            if new_passphrase_from != settings.keys.passphrase_from:
                raise EnvironmentFault(
                    f"{fault.message}: stop it first, it cannot be told of another passphrase",
                    reason=fault.reason,
                ) from None
            await _by_the_daemon(settings, path, wait_seconds)
            return " by the running daemon"
        FileKeyProvider(path, protections)  # a wrong passphrase must not make a second key
        make_key(staged(path), following)
        provider = FileKeyProvider(staged(path), following)
        former = FileKeyProvider(path, protections)
        rings = [
            await Keyring.open(store, provider, SystemClock(), former=former) for store in stores
        ]
        await MasterRotation(path, following, rings).rotate()
    return ""


async def _by_the_daemon(settings: Settings, path: Path, wait_seconds: float) -> None:
    protections = protections_of(settings)
    open_master_keys(path, protections)  # what it cannot open, the daemon cannot either
    make_key(staged(path), protections)
    try:
        async with asyncio.timeout(wait_seconds):
            while staged(path).exists():  # noqa: ASYNC110 - another process removes it
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        raise EnvironmentFault(
            f"{staged(path)} is made, but the running daemon has not taken it up within "
            f"{wait_seconds:g} s. It goes on trying; its log says why it waits",
            reason="ROTATION_WAITS",
        ) from None


def _status_of(layout: Layout, role: str) -> KeyStatus:
    path = layout.master_key(role)
    protection, key_id = named_key(path)
    names = [name for name in STORES_OF_KEY[role] if name in present(layout.data)]
    return KeyStatus(
        role=role,
        file=str(path),
        protection=protection,
        key_id=key_id,
        rotation_open=staged(path).exists(),
        stores=[_store_status(layout.data / name, name) for name in names],
    )


def _store_status(folder: Path, name: str) -> StoreStatus:
    reader = Reader(folder, keyring.TABLES)
    try:
        check, _ = reader.scan(keyring.MASTER_CHECK.number, b"", b"", 1)
        day_keys = reader.records(keyring.DAY_KEYS.number)
        days = [record.expires_at_ms // DAY_MS - 1 for _, record in day_keys]
        return StoreStatus(
            name=name,
            bound_to=master_key_id(check[0][1].value) if check else "",
            scope_keys=reader.count(keyring.SCOPE_KEYS.number),
            day_keys=len(days),
            first_day=_date(min(days, default=None)),
            last_day=_date(max(days, default=None)),
        )
    finally:
        reader.close()


def _date(day: int | None) -> str:
    return "" if day is None else str(date.fromordinal(_EPOCH + day))
