"""What a process of the daemon says by its exit code, and whether starting it again may help.

A role that has been ready is always restarted by `serve`, whatever it ended with; one that has not
been only where the table says so.

| code | name | meaning | restarted by `serve` |
|---|---|---|---|
| 0 | OK | stopped as asked | no |
| 1 | BUG | an unexpected exception; the log has its place | yes |
| 2 | USAGE | the command line is wrong | no |
| 3 | CONFIG | a setting is unknown or out of its bounds | no |
| 4 | DATA_FOLDER | the data folder is locked, foreign or cannot be used | no |
| 5 | KEYS | a key, token or credential file is missing, wrong or readable by others | no |
| 6 | TLS | a certificate or its key cannot be used | no |
| 7 | LISTEN | an address cannot be listened on | no |
| 8 | STORE_LOST | a committer ended; what was in flight has an unknown outcome | yes |
| 9 | WORKERS_LOST | ratchet workers end faster than they can be replaced | yes |
| 10 | GAVE_UP | `serve`: a role kept ending; the last lines above say with what | - |
| 11 | ENVIRONMENT | something else around the daemon is wrong; the message says what | yes |
| 12 | DAMAGED | a store does not agree with itself; `letterlockd verify` says where | no |
| 130 | INTERRUPTED | a command was ended by Ctrl-C; `serve` and the roles end with 0 | no |
"""

from __future__ import annotations

from enum import IntEnum

from letterlockd.errors import EnvironmentFault, LetterlockError

__all__ = ["ExitCode", "of_error", "restart_helps"]


class ExitCode(IntEnum):
    """See the module's table."""

    OK = 0
    BUG = 1
    USAGE = 2
    CONFIG = 3
    DATA_FOLDER = 4
    KEYS = 5
    TLS = 6
    LISTEN = 7
    STORE_LOST = 8
    WORKERS_LOST = 9
    GAVE_UP = 10
    ENVIRONMENT = 11
    DAMAGED = 12
    INTERRUPTED = 130


_OF_REASON = {
    "CONFIG_INVALID": ExitCode.CONFIG,
    "DATA_FOLDER_FOREIGN": ExitCode.DATA_FOLDER,
    "DATA_FOLDER_LOCKED": ExitCode.DATA_FOLDER,
    "DATA_FOLDER_UNUSABLE": ExitCode.DATA_FOLDER,
    "SCHEMA_TOO_NEW": ExitCode.DATA_FOLDER,
    "SCHEMA_TOO_OLD": ExitCode.DATA_FOLDER,
    "FILE_UNWRITABLE": ExitCode.DATA_FOLDER,
    "DATA_FOLDER_UNFINISHED": ExitCode.DATA_FOLDER,
    "BACKUP_UNUSABLE": ExitCode.DATA_FOLDER,
    "COPY_FAILED": ExitCode.DATA_FOLDER,
    "STORAGE_DAMAGED": ExitCode.DAMAGED,
    "MASTER_KEY_INVALID": ExitCode.KEYS,
    "MASTER_KEY_MISSING": ExitCode.KEYS,
    "MASTER_KEY_PERMISSIONS": ExitCode.KEYS,
    "MASTER_KEY_WRONG": ExitCode.KEYS,
    "MASTER_KEY_PASSPHRASE": ExitCode.KEYS,
    "GATEWAY_HASH_INVALID": ExitCode.KEYS,
    "KEY_FILE_UNUSABLE": ExitCode.KEYS,
    "SEAL_BROKEN": ExitCode.KEYS,
    "TLS_UNUSABLE": ExitCode.TLS,
    "LISTEN_FAILED": ExitCode.LISTEN,
    "STORAGE_UNAVAILABLE": ExitCode.STORE_LOST,
    "WORKER_LOST": ExitCode.WORKERS_LOST,
}

_RESTARTABLE = {
    ExitCode.BUG,
    ExitCode.STORE_LOST,
    ExitCode.WORKERS_LOST,
    ExitCode.ENVIRONMENT,
}


def of_error(error: LetterlockError) -> ExitCode:
    """The code of a process that ends with `error`."""
    fallback = ExitCode.ENVIRONMENT if isinstance(error, EnvironmentFault) else ExitCode.BUG
    return _OF_REASON.get(error.reason, fallback)


def restart_helps(code: int, *, was_ready: bool) -> bool:
    """Whether a role that ended with `code` is worth starting again. One that was ready before had
    its settings and files in order, and one that was killed (a negative code) gave no reason."""
    return was_ready or code < 0 or code in _RESTARTABLE
