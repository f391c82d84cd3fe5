"""Where everything is below the data folder, and what the first start makes there.

    <data>/
      gateway/ registry/        stores of the gateway role                          gateway
      relay/                    store of the relay role                             relay
      keys/gateway.key          master key of the gateway's and registry's stores   gateway
      keys/gateway.credential   the gateway's bearer credential at its relay        gateway
      keys/operator.token       the operator's bearer token, for the local CLI      neither
      keys/operator.hash        SHA-256 of its secret, in hex                       gateway
      keys/relay.key            master key of the relay's store                     relay
      keys/gateways/<id>.hash   SHA-256 of a gateway's credential, in hex           relay
      tls/                      local CA and server certificate                     both
      verification/             codes, only with relay.verification = "file"        relay
      restoring                 only while `letterlockd restore` works: refused

The last column says which role needs the file where the two run apart: then `keys/gateways/` goes
to the relay's machine, `tls/ca.crt` to the gateway's (outside of its own `tls/`), and
`keys/operator.token` to who operates.
All files are 0600 but certificates. Blocking; for start-up.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from letterlockd.errors import EnvironmentFault
from letterlockd.files import read_file, write_file
from letterlockd.registry import tokens
from letterlockd.sealing.errors import MasterKeyFault

__all__ = [
    "STORES_OF_KEY",
    "KeyFileFault",
    "Layout",
    "lost_keys",
    "prepare_keys",
    "refuse_lost_keys",
]

STORES_OF_KEY: Mapping[str, Sequence[str]] = {
    "gateway": ("registry", "gateway"),
    "relay": ("relay",),
}
"""Role → the stores whose keys are wrapped by its master key."""

_MAX_KEY_FILE = 1024
_GATEWAY_ID = "local"

_OURS = frozenset({"gateway", "registry", "relay", "keys", "tls", "verification", "restoring"})
_HARMLESS = frozenset({"letterlock.toml", "lost+found"})
"""May be in a folder before we are: own settings, and what a fresh file system has at its root."""


class KeyFileFault(EnvironmentFault):
    """A file below keys/ is missing, unreadable or malformed; the message names it."""

    reason = "KEY_FILE_UNUSABLE"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one data folder."""

    data: Path

    @property
    def keys(self) -> Path:
        """Keys, tokens and credentials."""
        return self.data / "keys"

    def master_key(self, role: str) -> Path:
        """The master key of a role ("gateway" or "relay")."""
        return self.keys / f"{role}.key"

    @property
    def operator_token(self) -> Path:
        """The operator's bearer token."""
        return self.keys / "operator.token"

    @property
    def restoring(self) -> Path:
        """There as long as a restore has not finished."""
        return self.data / "restoring"

    @property
    def tls(self) -> Path:
        """The local CA's folder."""
        return self.data / "tls"

    @property
    def ca(self) -> Path:
        """What clients trust, unless the operator has own certificates."""
        return self.tls / "ca.crt"

    def gateway_credential(self) -> str:
        """The gateway's credential. `KeyFileFault`."""
        return _text(self.keys / "gateway.credential")

    def operator_digest(self) -> bytes:
        """SHA-256 of the operator token's secret. `KeyFileFault`."""
        path = self.keys / "operator.hash"
        text = _text(path)
        if re.fullmatch(r"[0-9a-f]{64}", text) is None:
            raise KeyFileFault(f"{path} must hold a SHA-256 in hex")
        return bytes.fromhex(text)

    def gateway_hashes(self) -> dict[str, str]:
        """Gateway id → hex SHA-256 of its credential. `KeyFileFault`."""
        folder = self.keys / "gateways"
        try:
            paths = sorted(folder.glob("*.hash"))
        except OSError as error:
            raise KeyFileFault(f"{folder} cannot be read: {error.strerror}") from error
        return {path.stem: _text(path) for path in paths}


def prepare_keys(layout: Layout) -> list[Path]:
    """Make the operator's token and the gateway's credential where they are missing; returns the
    files made. What exists is never replaced. Raises `EnvironmentFault` (DATA_FOLDER_FOREIGN) for
    a folder of something else, and what `refuse_lost_keys` does, before anything is made."""
    _refuse_foreign(layout)
    refuse_lost_keys(layout)
    made: list[Path] = []
    if not (layout.keys / "operator.hash").exists():
        text, bearer = tokens.mint(secrets.token_bytes, tokens.OPERATOR)
        made += _write(layout.operator_token, text)
        made += _write(layout.keys / "operator.hash", bearer.digest.hex())
    if not (layout.keys / "gateway.credential").exists():
        credential = f"gw.{_GATEWAY_ID}.{secrets.token_urlsafe(32)}"
        digest = hashlib.sha256(credential.encode()).hexdigest()
        # The hash first: a credential without it would be refused for good after a crash here.
        made += _write(layout.keys / "gateways" / f"{_GATEWAY_ID}.hash", digest)
        made += _write(layout.keys / "gateway.credential", credential)
    return made


def lost_keys(layout: Layout, roles: Iterable[str] = STORES_OF_KEY) -> dict[Path, str]:
    """The master key files of these roles that are missing → a store that needs the file. A key is
    durable before its first store is made, so wherever a store is there was a key."""
    return {
        layout.master_key(role): name
        for role in roles
        if not layout.master_key(role).exists()
        for name in STORES_OF_KEY[role]
        if (layout.data / name / "data.mdb").exists()
    }


def refuse_lost_keys(layout: Layout, roles: Iterable[str] = STORES_OF_KEY) -> None:
    """A new key would open nothing, and stand where the right one belongs. Raises `MasterKeyFault`
    (MASTER_KEY_MISSING)."""
    for path, store in lost_keys(layout, roles).items():
        raise MasterKeyFault(
            f"master key {path} is missing, and the store {store} opens with no other: put the "
            "file back, with all of keys/ and tls/, from where you keep them",
            reason="MASTER_KEY_MISSING",
        )


def _refuse_foreign(layout: Layout) -> None:
    if layout.keys.exists() or not layout.data.exists():
        return
    try:
        others = sorted({path.name for path in layout.data.iterdir()} - _OURS - _HARMLESS)
    except OSError as error:
        raise EnvironmentFault(
            f"data folder {layout.data} cannot be used: {error.strerror}",
            reason="DATA_FOLDER_UNUSABLE",
        ) from error
    if others:
        raise EnvironmentFault(
            f"data folder {layout.data} holds other files ({others[0]}) and no keys/: choose an "
            "empty folder, or one of letterlockd",
            reason="DATA_FOLDER_FOREIGN",
        )


def _write(path: Path, text: str) -> list[Path]:
    write_file(path, text.encode() + b"\n", mode=0o600)
    return [path]


def _text(path: Path) -> str:
    if not path.exists():
        raise KeyFileFault(f"{path} does not exist: `letterlockd init` makes it")
    content = read_file(path, limit=_MAX_KEY_FILE, fault=KeyFileFault)
    try:
        return content.decode("ascii").strip()
    except UnicodeDecodeError:
        raise KeyFileFault(f"{path} is not plain text") from None
