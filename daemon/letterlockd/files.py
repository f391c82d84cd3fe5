"""Small files that must be whole and private: keys, tokens, certificates.

Blocking: for start-up and the command line, never for the time in between.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from letterlockd.errors import EnvironmentFault

__all__ = ["read_file", "write_file"]


def read_file(path: Path, *, limit: int, fault: type[EnvironmentFault]) -> bytes:
    """The content of `path`, at most `limit` bytes. Raises `fault`, naming the file, when it cannot
    be read or is larger."""
    try:
        with path.open("rb") as reader:
            content = reader.read(limit + 1)
    except OSError as error:
        raise fault(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise fault(f"{path} is larger than {limit} bytes")
    return content


def write_file(path: Path, content: bytes, *, mode: int) -> None:
    """Replace `path` as a whole, durably: written aside, then renamed. Raises `EnvironmentFault`
    (FILE_UNWRITABLE), naming the file."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            _write_new(aside, content, mode)
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise EnvironmentFault(
            f"{path} cannot be written: {error.strerror}", reason="FILE_UNWRITABLE"
        ) from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(file, "wb") as writer:
        os.fchmod(writer.fileno(), mode)  # whatever the umask says
        writer.write(content)
        writer.flush()
        os.fsync(writer.fileno())


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
