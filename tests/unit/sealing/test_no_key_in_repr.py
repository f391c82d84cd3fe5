"""I5: no object of the sealing room shows a key when it is printed or raised."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import letterlockd.sealing
from letterlockd.records.v1.deletions_pb2 import DeletionRecord
from letterlockd.sealing.deletions import Chain, Deletions
from letterlockd.sealing.errors import KeyDestroyed, MasterKeyFault, SealBroken
from letterlockd.sealing.keyring import TABLES, DayKey, Keyring
from letterlockd.sealing.protection import Command, Passphrase, Protections, _Protection
from letterlockd.sealing.provider import FileKeyProvider, KeyProvider
from letterlockd.sealing.rotation import MasterRotation
from letterlockd.sealing.seal import Cipher, Deriver
from letterlockd.store.memory import MemoryStore

from tests.harness.clock import FakeClock


async def _secret_bearing(tmp_path: Path) -> dict[type, tuple[object, list[bytes]]]:
    """An object of every class of the room that holds keys, and the keys it holds."""
    provider = FileKeyProvider(tmp_path / "master.key")
    ring = await Keyring.open(MemoryStore(TABLES), provider, FakeClock())
    scope_key = await ring.scope_key(b"")
    day_key = await ring.day_key(b"", FakeClock().now_ms())
    return {
        FileKeyProvider: (provider, [provider._key]),
        Keyring: (ring, [scope_key, day_key.key]),
        DayKey: (day_key, [day_key.key]),
        Cipher: (Cipher(scope_key), [scope_key]),
        Deriver: (Deriver(scope_key), [scope_key]),
        Chain: (Chain(scope_key), [scope_key]),
        Deletions: (Deletions(MemoryStore([]), scope_key, 0, DeletionRecord()), [scope_key]),
    }


def _classes() -> set[type]:
    found: set[type] = set()
    for module_info in pkgutil.iter_modules(letterlockd.sealing.__path__, "letterlockd.sealing."):
        module = importlib.import_module(module_info.name)
        for _, member in inspect.getmembers(module, inspect.isclass):
            if member.__module__ == module.__name__:
                found.add(member)
    return found


async def test_every_class_is_known_and_shows_no_key(tmp_path: Path) -> None:
    holders = await _secret_bearing(tmp_path)
    keyless = {KeyProvider, SealBroken, KeyDestroyed, MasterKeyFault}
    keyless |= {Command, Passphrase, Protections, _Protection, MasterRotation}
    assert _classes() == set(holders) | keyless
    for shown, keys in holders.values():
        for key in keys:
            for text in (repr(shown), str(shown), f"{shown}"):
                assert repr(key)[2:-1] not in text
                assert key.hex() not in text
