"""The composition roots: which parts a role is made of, and in which order they open.

    relay     store ─ keyring ─ room ─ server
    gateway   stores ─ keyrings ─ registry ─ workers ─ room (uplink) ─ server

What opens later closes earlier; `role` runs what is composed here. The only module that knows all
rooms; nothing is decided here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from letterlockd.clock import SystemClock
from letterlockd.config import Settings
from letterlockd.layout import Layout
from letterlockd.role import Composed, run_role
from letterlockd.rpc.server import Limits, RpcServer, Service
from letterlockd.rpc.tls import ServerIdentity, local_identity, own_identity
from letterlockd.sealing import keyring
from letterlockd.sealing.keyring import Keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.store.port import Table

__all__ = ["run_gateway", "run_relay"]

SCHEMA_VERSION = 1
"""Of all stores; see `store.lmdb.prepare` for how one is raised."""


def run_relay(settings: Settings, *, ready_fd: int | None, until_stdin_ends: bool) -> int:
    """Run the relay role until it is told to stop; returns the exit code."""
    return run_role(
        "relay", settings, compose_relay, ready_fd=ready_fd, until_stdin_ends=until_stdin_ends
    )


def run_gateway(settings: Settings, *, ready_fd: int | None, until_stdin_ends: bool) -> int:
    """Run the gateway role until it is told to stop; returns the exit code."""
    return run_role(
        "gateway", settings, compose_gateway, ready_fd=ready_fd, until_stdin_ends=until_stdin_ends
    )


async def compose_relay(settings: Settings, opened: AsyncExitStack) -> Composed:
    """The relay, open and not yet listening. What it imports never reaches the ratchet (I3)."""
    from letterlock.relay.v1 import accounts_pb2_grpc, keys_pb2_grpc

    from letterlockd.relay.room import Relay
    from letterlockd.relay.senders import CommandSender, FolderSender
    from letterlockd.relay.settings import RelaySettings
    from letterlockd.relay.tables import TABLES
    from letterlockd.rpc.relay_accounts import AccountsServicer
    from letterlockd.rpc.relay_keys import KeysServicer
    from letterlockd.rpc.relay_mailbox import MailboxServicer, add_mailbox_servicer

    layout, clock = Layout(settings.data_folder), SystemClock()
    gateways = layout.gateway_hashes()
    provider = FileKeyProvider(layout.keys / "relay.key")
    store = await _open_store(layout, settings, "relay", TABLES, opened)
    keys = await Keyring.open(store, provider, clock)
    sender = (
        CommandSender(settings.relay.verification_command)
        if settings.relay.verification == "command"
        else FolderSender(layout.data / "verification")
    )
    relay = await Relay.open(store, keys, clock, os.urandom, RelaySettings(), gateways, sender)
    opened.push_async_callback(relay.aclose)
    services = [
        Service(
            "letterlock.relay.v1.Accounts",
            AccountsServicer(relay),
            accounts_pb2_grpc.add_AccountsServicer_to_server,
        ),
        Service(
            "letterlock.relay.v1.Keys",
            KeysServicer(relay),
            keys_pb2_grpc.add_KeysServicer_to_server,
        ),
        Service("letterlock.relay.v1.Mailbox", MailboxServicer(relay), add_mailbox_servicer),
    ]
    server = RpcServer(
        services,
        listen=settings.relay.listen,
        identity=await asyncio.to_thread(_identity, settings, layout),
        authenticator=relay.authenticator,
        limits=_limits(settings),
        reflect=settings.reflection,
    )
    composed = Composed(
        server=server,
        listen=settings.relay.listen,
        metrics=settings.relay.metrics,
        drain=relay.drain,
        running=[store.failed, relay.failed],
    )
    composed.counters.gauge("calls", "Calls in flight.", lambda: server.gatekeeper.calls)
    return composed


async def compose_gateway(settings: Settings, opened: AsyncExitStack) -> Composed:
    """The gateway with the registry, open and not yet listening."""
    raise NotImplementedError


async def _open_store(
    layout: Layout,
    settings: Settings,
    name: str,
    tables: Sequence[Table],
    opened: AsyncExitStack,
) -> LmdbStore:
    store = await LmdbStore.open(
        layout.data / name,
        [*tables, *keyring.TABLES],
        kind=name,
        schema_version=SCHEMA_VERSION,
        max_size_bytes=settings.store.max_bytes,
    )
    opened.push_async_callback(store.aclose)
    return store


def _identity(settings: Settings, layout: Layout) -> ServerIdentity:
    """Blocking: files and, on the first start, key generation."""
    now = datetime.now(UTC)
    tls = settings.tls
    if tls.certificate is not None and tls.key is not None:
        return own_identity(tls.certificate, tls.key, now)
    return local_identity(layout.tls, tls.names, now)


def _limits(settings: Settings) -> Limits:
    return Limits(
        calls=settings.limits.calls,
        streams_per_connection=settings.limits.streams_per_connection,
    )


def _relay_ca(settings: Settings, layout: Layout) -> Path:
    return settings.gateway.relay_ca or layout.ca
