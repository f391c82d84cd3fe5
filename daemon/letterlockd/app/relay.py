"""The relay as a process. Imports nothing that reaches the ratchet (I3)."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

from letterlock.relay.v1 import accounts_pb2_grpc, keys_pb2_grpc

from letterlockd.app.exporting import open_traces
from letterlockd.app.parts import (
    COMMIT_TIMES,
    count_restorations,
    limits_of,
    open_store,
    protections_of,
    server_identity,
)
from letterlockd.clock import Clock, system_clock
from letterlockd.health import Health, watched
from letterlockd.layout import Layout, refuse_lost_keys
from letterlockd.relay import restored
from letterlockd.relay.room import Relay
from letterlockd.relay.senders import CommandSender, FolderSender
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.tables import TABLES
from letterlockd.relay.verification import VerificationSender
from letterlockd.role import Composed, run_role
from letterlockd.rpc.relay_accounts import AccountsServicer
from letterlockd.rpc.relay_keys import KeysServicer
from letterlockd.rpc.relay_mailbox import MailboxServicer, add_mailbox_servicer
from letterlockd.rpc.server import RpcServer, Service
from letterlockd.sealing.keyring import Keyring
from letterlockd.sealing.rotation import MasterRotation, open_master_keys
from letterlockd.settings import Settings
from letterlockd.store.history import History
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.telemetry import Counters

__all__ = ["compose", "run_relay"]


def run_relay(settings: Settings, *, ready_fd: int | None, until_stdin_ends: bool) -> int:
    """Run the relay role until it is told to stop; returns the exit code."""
    return run_role(
        "relay", settings, compose, ready_fd=ready_fd, until_stdin_ends=until_stdin_ends
    )


async def compose(settings: Settings, opened: AsyncExitStack) -> Composed:
    """The relay, open and not yet listening."""
    layout, clock = Layout(settings.data_folder), system_clock()
    refuse_lost_keys(layout, ["relay"])
    gateways = layout.gateway_hashes()
    key_file, protections = layout.master_key("relay"), protections_of(settings)
    provider, former = await asyncio.to_thread(open_master_keys, key_file, protections)
    identity = await asyncio.to_thread(server_identity, settings)
    store = await open_store(settings, "relay", TABLES, opened)
    history = await History.open(store, lambda: store.position)
    keyring = await Keyring.open(store, provider, clock, former=former)
    await restored.settle(store, history)
    relay = await Relay.open(
        store,
        keyring,
        clock,
        os.urandom,
        RelaySettings(),
        gateways,
        await _verification_sender(settings, layout),
        history,
        await open_traces("relay", settings, clock, opened),
    )
    opened.push_async_callback(relay.aclose)
    rotation = MasterRotation(key_file, protections, [keyring])
    server = RpcServer(
        _services(relay),
        listen=settings.relay.listen,
        identity=identity,
        authenticator=relay.authenticator,
        limits=limits_of(settings),
        reflect=settings.reflection,
    )
    composed = Composed(
        server=server,
        health=_health(settings, store, relay, clock),
        listen=settings.relay.listen,
        metrics=settings.relay.metrics,
        drain=relay.drain,
        running=[store.failed, relay.failed, rotation.run],
    )
    _count(composed.counters, server, relay)
    count_restorations(composed.counters, history)
    composed.counters.legs(composed.health)
    composed.counters.histogram("commit", COMMIT_TIMES, store.commit_times)
    return composed


def _health(settings: Settings, store: LmdbStore, relay: Relay, clock: Clock) -> Health:
    """Devices need all of it for everything: a mailbox that cannot be written to takes nothing."""
    bound_s = settings.health.bound_seconds
    legs = [
        watched("store", bound_s, store.writer, store.prove),
        watched("space", bound_s, store.space),
        watched("mailboxes", bound_s, lambda: relay.mailing),
    ]
    all_of_it = frozenset(each.leg.name for each in legs)
    names = ("Accounts", "Keys", "Mailbox")
    services = {f"letterlock.relay.v1.{name}": all_of_it for name in names}
    return Health(legs, services, clock, bound_s=bound_s)


def _count(counters: Counters, server: RpcServer, relay: Relay) -> None:
    counters.gauge("calls", "Calls in flight.", lambda: server.gatekeeper.calls)
    counters.count(server.gatekeeper.denials.counters)
    counters.gauge(
        "streams", "Mailboxes with an open stream (Connect).", lambda: len(relay.switchboard)
    )
    counters.count(relay.counters)


async def _verification_sender(settings: Settings, layout: Layout) -> VerificationSender:
    folder = FolderSender(layout.data / "verification")
    if settings.relay.verification == "file":
        return folder
    await folder.clear(_nobody_reads)
    return CommandSender(settings.relay.verification_command)


async def _nobody_reads(verification_id: str) -> bool:
    """Whether a code in a file is still wanted once a program sends them."""
    return False


def _services(relay: Relay) -> list[Service]:
    return [
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
