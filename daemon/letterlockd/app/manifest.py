"""What a backup says of itself: `manifest.json` beside the stores, the last thing written.

Untrusted when it is read: every field is checked, and every file against its checksum, before
anything of it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from letterlockd.errors import EnvironmentFault
from letterlockd.files import read_file

__all__ = ["BackupFault", "Manifest", "StoredFile", "checksum", "read_manifest"]

FORMAT = 1
_MAX_BYTES = 1024 * 1024
_BLOCK = 1024 * 1024


class BackupFault(EnvironmentFault):
    """A backup cannot be made or used; the message says what of it."""

    reason = "BACKUP_UNUSABLE"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One store in a backup. `master_key_id` names the key that opens it."""

    store: str
    size: int
    sha256: str
    schema: int
    store_id: str
    position: int
    master_key_id: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`made_at`: RFC 3339, when the snapshots were taken. `with_keys`: keys/ and tls/ are in it."""

    program: str
    made_at: str
    with_keys: bool
    stores: list[StoredFile]

    def text(self) -> bytes:
        """As it is written."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2).encode() + b"\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup. Raises `BackupFault`."""
    text = read_file(folder / "manifest.json", limit=_MAX_BYTES, fault=BackupFault)
    try:
        said = json.loads(text)
        if said.pop("format") != FORMAT:
            raise BackupFault(f"{folder} is a backup of a version that this program does not know")
        stores = [_stored(fields) for fields in said.pop("stores")]
        made = Manifest(stores=stores, **said)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BackupFault(f"{folder}/manifest.json is damaged") from None
    if not stores or type(made.with_keys) is not bool:
        raise BackupFault(f"{folder}/manifest.json is damaged")
    return made


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex. Raises `BackupFault`."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as reader:
            while block := reader.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise BackupFault(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _stored(fields: dict[str, Any]) -> StoredFile:
    stored = StoredFile(**fields)
    numbers = (stored.size, stored.schema, stored.position)
    texts = (stored.store, stored.store_id, stored.master_key_id, stored.sha256)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError
    if not all(re.fullmatch(r"[0-9a-z]{0,64}", text) for text in texts):
        raise ValueError
    return stored
