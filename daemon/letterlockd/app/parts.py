"""What every role opens: stores, the server's certificate, its bounds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime

from letterlockd.app.passphrases import read_passphrase
from letterlockd.errors import EnvironmentFault
from letterlockd.layout import Layout
from letterlockd.rpc.server import Limits
from letterlockd.rpc.tls import ServerIdentity, local_identity, own_identity
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.sealing.protection import Command, Passphrase, Protections
from letterlockd.settings import Settings
from letterlockd.store.history import HISTORY, History
from letterlockd.store.lmdb.front import LmdbStore, Migration
from letterlockd.store.port import Table
from letterlockd.telemetry import Counters

__all__ = [
    "COMMIT_TIMES",
    "MIGRATIONS",
    "SCHEMA_VERSION",
    "count_restorations",
    "limits_of",
    "open_store",
    "protections_of",
    "server_identity",
]

COMMIT_TIMES = "From handing a batch to the store's writer until it is durable."
"""What the metric of that name means, in both roles."""

SCHEMA_VERSION = 1
"""Of all stores. Raise it when stored rows change their meaning, with a step in `MIGRATIONS`."""

MIGRATIONS: tuple[Migration, ...] = ()
"""Steps from each older version to the next, run by the committer at start, in one transaction."""


async def open_store(
    settings: Settings,
    name: str,
    tables: Sequence[Table],
    opened: AsyncExitStack,
    *,
    lock_wait_seconds: float = 5.0,
    unfinished: bool = False,
) -> LmdbStore:
    """The store `<data>/<name>` with these tables and those of its keyring. Raises
    `EnvironmentFault` (DATA_FOLDER_UNFINISHED) while a restore has not finished there, unless
    that is who asks (`unfinished`)."""
    if Layout(settings.data_folder).restoring.exists() and not unfinished:
        raise EnvironmentFault(
            f"a restore into {settings.data_folder} was not finished: run it again",
            reason="DATA_FOLDER_UNFINISHED",
        )
    store = await LmdbStore.open(
        Layout(settings.data_folder).data / name,
        [*tables, *keyring.TABLES, HISTORY, DELETIONS],
        kind=name,
        schema_version=SCHEMA_VERSION,
        migrations=MIGRATIONS,
        max_size_bytes=settings.store.max_bytes,
        lock_wait_seconds=lock_wait_seconds,
    )
    opened.push_async_callback(store.aclose)
    return store


def protections_of(settings: Settings) -> Protections:
    """How master keys are opened and made. Asks for nothing yet."""
    keys = settings.keys
    read = functools.partial(read_passphrase, keys.passphrase_from)
    return Protections(
        keys.protection,
        passphrase=Passphrase(read) if keys.passphrase_from else None,
        command=Command(keys.command, keys.command_seconds) if keys.command else None,
    )


def server_identity(settings: Settings) -> ServerIdentity:
    """The operator's certificate, or the local CA's. Blocking: files, and keys on first start."""
    now = datetime.now(UTC)
    tls = settings.tls
    if tls.certificate is not None and tls.key is not None:
        return own_identity(tls.certificate, tls.key, now)
    return local_identity(Layout(settings.data_folder).tls, tls.names, now)


def count_restorations(counters: Counters, history: History) -> None:
    """The metric of a store that was restored, or was found to have gone back."""
    counters.gauge(
        "restorations",
        "How often the store was restored or had gone back.",
        lambda: history.generation,
    )


def limits_of(settings: Settings) -> Limits:
    """The bounds of the role's server."""
    return Limits(
        calls=settings.limits.calls,
        streams_per_connection=settings.limits.streams_per_connection,
    )
