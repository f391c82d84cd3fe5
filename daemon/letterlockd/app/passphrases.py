"""Where a passphrase comes from, and how the role processes get it.

    file:<path>         read each time, so that it can be changed
    credential:<name>   systemd's LoadCredential: a file below $CREDENTIALS_DIRECTORY
    prompt, fd:<n>      can be read only once: `hold` takes it into anonymous memory (memfd), which
                        the role processes inherit as an fd of their own

Never from an argument or a setting's value: those are seen by every process of the machine, or lie
in files that people copy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from letterlockd.sealing.errors import MasterKeyFault

__all__ = ["held_fd", "hold", "no_passphrase", "read_passphrase"]

_MAX_BYTES = 8_192


def read_passphrase(source: str) -> bytes:
    """The passphrase of a `keys.passphrase_from`. Raises `MasterKeyFault`
    (MASTER_KEY_PASSPHRASE)."""
    kind, _, name = source.partition(":")
    try:
        if kind == "fd":
            return os.pread(int(name), _MAX_BYTES, 0)
        if kind == "file":
            return _content(Path(name))
        if kind == "credential":
            return _content(Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere"), name))
    except OSError as error:
        raise _fault(f"{source} cannot be read: {error.strerror}") from error
    raise _fault("it can be asked for only at a terminal")


def hold(source: str, ask: Callable[[], str]) -> str:
    """A source that can be read again and inherited, for one that can be read only once. `ask`
    prompts. Raises `MasterKeyFault`."""
    if source == "prompt":
        return _kept(ask().encode())
    if source.startswith("fd:"):
        number = int(source[len("fd:") :])
        try:
            os.lseek(number, 0, os.SEEK_CUR)  # what can seek can be read again
        except OSError:
            return _kept(_rest(number))
    return source


def no_passphrase() -> MasterKeyFault:
    """Whoever was asked gave none: the input ended."""
    return _fault("the input ended before a passphrase was given")


def held_fd(source: str) -> list[int]:
    """The file descriptors that a child process needs to read this source."""
    return [int(source[len("fd:") :])] if source.startswith("fd:") else []


def _content(path: Path) -> bytes:
    with path.open("rb") as reader:
        return reader.read(_MAX_BYTES)


def _rest(number: int) -> bytes:
    try:
        with os.fdopen(number, "rb") as reader:
            return reader.read(_MAX_BYTES)
    except OSError as error:
        raise _fault(f"fd:{number} cannot be read: {error.strerror}") from error


def _kept(passphrase: bytes) -> str:
    try:
        memory = os.memfd_create("letterlock-passphrase")
    except (AttributeError, OSError):
        raise _fault("this system cannot hold it in memory; use file: or credential:") from None
    os.write(memory, passphrase)
    os.lseek(memory, 0, os.SEEK_SET)
    return f"fd:{memory}"


def _fault(text: str) -> MasterKeyFault:
    return MasterKeyFault(f"keys.passphrase_from: {text}", reason="MASTER_KEY_PASSPHRASE")
