"""How the master key lies in its file: in clear, under a passphrase, or wrapped by a command.

    file         32 bytes in base64, one line
    passphrase   {"protection": "passphrase", "key_id", "salt", "memory_kib", "iterations",
                  "lanes", "sealed"}: sealed under Argon2id of the passphrase
    command      {"protection": "command", "key_id", "wrapped"}: what a program of the operator's
                 (a key service's client) made of it, kept as text

A file opens as it says itself; which way a *new* file is made is a setting. So a change of
protection is a rotation, and needs no state of its own. Everything here blocks (Argon2id a quarter
of a second, a command up to its deadline): never on an event loop.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from letterlockd.sealing.errors import MasterKeyFault, SealBroken
from letterlockd.sealing.seal import KEY_BYTES, seal, subkey, unseal

__all__ = ["UNPROTECTED", "Command", "Passphrase", "Protections", "key_id", "protection_of"]

_CONTEXT = b"letterlock master key"
_SALT_BYTES = 16
_MAX_PASSPHRASE_BYTES = 4_096
_MAX_WRAPPED_BYTES = 16 * 1024


def key_id(key: bytes) -> str:
    """16 hexadecimal digits derived from a master key: names it without telling it."""
    return subkey(key, "letterlock master key id")[:8].hex()


class _Protection(Protocol):
    def close(self, key: bytes) -> dict[str, object]:
        """The fields to keep."""
        ...

    def open(self, fields: Mapping[str, Any]) -> bytes:
        """The key again. Raises `MasterKeyFault`."""
        ...


@dataclass(frozen=True, slots=True)
class Passphrase:
    """`read` gives the passphrase, 8 to 4,096 bytes; asked each time, so that nothing keeps it.

    The defaults are the second choice of RFC 9106, section 4. A file may say others, from OWASP's
    minimum (less is no protection) to 1 GiB (more could stop the machine).
    """

    read: Callable[[], bytes] = field(repr=False)
    memory_kib: int = 64 * 1024
    iterations: int = 3
    lanes: int = 4

    def close(self, key: bytes) -> dict[str, object]:
        """Salt, costs and sealed key."""
        salt = os.urandom(_SALT_BYTES)
        costs = {"memory_kib": self.memory_kib, "iterations": self.iterations, "lanes": self.lanes}
        sealed = seal(self._derived(salt, costs), key, _CONTEXT)
        return {"salt": _text(salt), **costs, "sealed": _text(sealed)}

    def open(self, fields: Mapping[str, Any]) -> bytes:
        """MASTER_KEY_PASSPHRASE when it is another one."""
        costs = {name: _number(fields, name, *bounds) for name, bounds in _COSTS.items()}
        salt, sealed = _bytes(fields, "salt"), _bytes(fields, "sealed")
        if len(salt) != _SALT_BYTES:
            raise MasterKeyFault(f"salt: must have {_SALT_BYTES} bytes")
        try:
            return unseal(self._derived(salt, costs), sealed, _CONTEXT)
        except SealBroken:
            raise MasterKeyFault(
                "the passphrase is wrong, or the file is damaged", reason="MASTER_KEY_PASSPHRASE"
            ) from None

    def _derived(self, salt: bytes, costs: Mapping[str, int]) -> bytes:
        passphrase = self.read().removesuffix(b"\n").removesuffix(b"\r")
        if not _MIN_PASSPHRASE_BYTES <= len(passphrase) <= _MAX_PASSPHRASE_BYTES:
            raise MasterKeyFault(
                f"passphrase: {_MIN_PASSPHRASE_BYTES} to {_MAX_PASSPHRASE_BYTES} bytes",
                reason="MASTER_KEY_PASSPHRASE",
            )
        return Argon2id(
            salt=salt,
            length=KEY_BYTES,
            iterations=costs["iterations"],
            lanes=costs["lanes"],
            memory_cost=costs["memory_kib"],
        ).derive(passphrase)


_MIN_PASSPHRASE_BYTES = 8
_COSTS = {"memory_kib": (19 * 1024, 1024 * 1024), "iterations": (2, 64), "lanes": (1, 16)}


@dataclass(frozen=True, slots=True)
class Command:
    """A program that wraps the master key with a key service.

    Run as `arguments… wrap` or `arguments… unwrap`, one line in and one line out: `wrap` gets the
    key in base64 and answers any text of 1 to 16,384 bytes, `unwrap` gets that text and answers the
    key in base64. Exit code 0 within `seconds`, or MASTER_KEY_COMMAND. What it says on standard
    error goes to the operator's log as it is: it must not print the key there.
    """

    arguments: Sequence[str]
    seconds: float = 30.0

    def close(self, key: bytes) -> dict[str, object]:
        """The wrapped key, proven to open again before anything is sealed under it."""
        wrapped = self._answer("wrap", base64.b64encode(key))
        if not 0 < len(wrapped) <= _MAX_WRAPPED_BYTES or not wrapped.isascii():
            raise _command_fault(f"wrap must answer 1 to {_MAX_WRAPPED_BYTES} ASCII characters")
        fields: dict[str, object] = {"wrapped": wrapped.decode("ascii")}
        if self.open(fields) != key:
            raise _command_fault("unwrap did not give what was wrapped")
        return fields

    def open(self, fields: Mapping[str, Any]) -> bytes:
        """MASTER_KEY_COMMAND when the program fails."""
        wrapped = fields.get("wrapped")
        if not isinstance(wrapped, str) or not wrapped.isascii():
            raise MasterKeyFault("wrapped: must be text")
        try:
            return base64.b64decode(self._answer("unwrap", wrapped.encode()), validate=True)
        except binascii.Error:
            raise _command_fault("unwrap must answer base64") from None

    def _answer(self, verb: str, line: bytes) -> bytes:
        try:
            ran = subprocess.run(  # noqa: S603 - the operator's own command
                [*self.arguments, verb],
                input=line + b"\n",
                stdout=subprocess.PIPE,
                timeout=self.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _command_fault(f"{verb} took longer than {self.seconds:g} s") from None
        except OSError as error:
            raise _command_fault(f"cannot be run: {error.strerror}") from None
        if ran.returncode != 0:
            raise _command_fault(f"{verb} ended with code {ran.returncode}")
        return ran.stdout.strip()


@dataclass(frozen=True, slots=True)
class Protections:
    """The ways that are set up here, and the one for new keys."""

    new: Literal["file", "passphrase", "command"] = "file"
    passphrase: Passphrase | None = None
    command: Command | None = None

    def text(self, key: bytes) -> bytes:
        """A key file's content. Raises `MasterKeyFault`."""
        if self.new == "file":
            return base64.b64encode(key) + b"\n"
        fields = self._named(self.new).close(key)
        said = {"protection": self.new, "key_id": key_id(key), **fields}
        return json.dumps(said).encode() + b"\n"

    def key(self, text: bytes) -> bytes:
        """The key in a file's content. Raises `MasterKeyFault`."""
        if text.lstrip().startswith(b"{"):
            fields = _fields(text)
            key = self._named(str(fields.get("protection"))).open(fields)
            if len(key) == KEY_BYTES and fields.get("key_id") == key_id(key):
                return key
            raise MasterKeyFault("opens to another key than it names")
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise MasterKeyFault(f"must hold {KEY_BYTES} bytes in base64")
        return key

    def _named(self, name: str) -> _Protection:
        if name not in {"passphrase", "command"}:
            raise MasterKeyFault("is protected in a way that this version does not know")
        found = self.passphrase if name == "passphrase" else self.command
        if found is None:
            setting = {"passphrase": "passphrase_from", "command": "command"}[name]
            raise MasterKeyFault(
                f"is protected by a {name}: set keys.{setting}",
                reason=f"MASTER_KEY_{name.upper()}",
            )
        return found


UNPROTECTED = Protections()
"""Keys in clear, which the file's permissions protect."""


def protection_of(text: bytes) -> tuple[str, str]:
    """How a file's key is protected, and its id where the file tells it ("" where it does not)."""
    if not text.lstrip().startswith(b"{"):
        return "file", ""
    fields = _fields(text)
    return str(fields.get("protection")), str(fields.get("key_id"))


def _fields(text: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise MasterKeyFault("is damaged: it begins as JSON and is none")
    return fields


def _number(fields: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not least <= value <= most:
        raise MasterKeyFault(f"{name}: must be {least} to {most}")
    return value


def _bytes(fields: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(fields.get(name, ""), validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise MasterKeyFault(f"{name}: must be base64") from None


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _command_fault(text: str) -> MasterKeyFault:
    return MasterKeyFault(f"keys.command: {text}", reason="MASTER_KEY_COMMAND")
