"""The gateway, with the registry, as a process."""

from __future__ import annotations

import asyncio
import functools
import os
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path

import grpc
import structlog
from letterlock.v1 import businesses_pb2_grpc, identities_pb2_grpc, receiving_pb2_grpc

from letterlockd.app.exporting import open_traces
from letterlockd.app.parts import (
    count_restorations,
    limits_of,
    open_store,
    protections_of,
    server_identity,
)
from letterlockd.app.watching import time_path, watch_gateway
from letterlockd.clock import WaryClock, system_clock
from letterlockd.files import read_file
from letterlockd.gateway import expiry, tables
from letterlockd.gateway.handover import Handover
from letterlockd.gateway.inbox import Inbox
from letterlockd.gateway.inbox_rows import INBOX_TABLES
from letterlockd.gateway.reception import Receptions
from letterlockd.gateway.room import Gateway
from letterlockd.gateway.settings import GatewaySettings
from letterlockd.housekeeping import Duty, Sweeper
from letterlockd.layout import Layout, refuse_lost_keys
from letterlockd.registry import tables as registry_tables
from letterlockd.registry.room import Registry
from letterlockd.role import Composed, run_role
from letterlockd.rpc.businesses import BusinessesServicer
from letterlockd.rpc.identities import IdentitiesServicer
from letterlockd.rpc.messaging import Messaging, add_messaging_servicer
from letterlockd.rpc.receiving import ReceivingServicer
from letterlockd.rpc.server import RpcServer, Service
from letterlockd.rpc.tls import TlsFault
from letterlockd.sealing.deletions import Deletions
from letterlockd.sealing.keyring import DAY_MS, Keyring
from letterlockd.sealing.rotation import MasterRotation, open_master_keys
from letterlockd.settings import Settings
from letterlockd.store.history import History
from letterlockd.telemetry import Counters
from letterlockd.uplink import open_channel
from letterlockd.workers.pool import WorkerPool

__all__ = ["compose", "run_gateway"]

_log = structlog.get_logger(__name__)


def run_gateway(settings: Settings, *, ready_fd: int | None, until_stdin_ends: bool) -> int:
    """Run the gateway role until it is told to stop; returns the exit code."""
    return run_role(
        "gateway", settings, compose, ready_fd=ready_fd, until_stdin_ends=until_stdin_ends
    )


async def compose(settings: Settings, opened: AsyncExitStack) -> Composed:
    """The gateway, open and not yet listening."""
    layout, clock = Layout(settings.data_folder), system_clock()
    refuse_lost_keys(layout, ["gateway"])
    credential, operator = layout.gateway_credential(), layout.operator_digest()
    key_file, protections = layout.master_key("gateway"), protections_of(settings)
    provider, former = await asyncio.to_thread(open_master_keys, key_file, protections)
    identity = await asyncio.to_thread(server_identity, settings)
    to_relay = functools.partial(
        open_channel,
        settings.gateway.relay,
        _relay_credentials(settings.gateway.relay_ca or layout.ca),
        name=settings.gateway.relay_name,
    )
    books = await open_store(settings, "registry", registry_tables.TABLES, opened)
    book_keys = await Keyring.open(books, provider, clock, former=former)
    registry = Registry(books, book_keys, clock, operator_digest=operator)
    store = await open_store(settings, "gateway", [*tables.TABLES, *INBOX_TABLES], opened)
    history = await History.open(store, lambda: store.position)
    keyring = await Keyring.open(store, provider, clock, former=former)
    book_deletions = await Deletions.open(books, book_keys)
    inbox = await Inbox.open(store, clock)
    pool = await opened.enter_async_context(WorkerPool(settings.gateway.workers))
    _log.info("workers_started", count=pool.size, primitives=_primitives())
    gateway = await opened.enter_async_context(
        Gateway.open(
            store=store,
            keyring=keyring,
            pool=pool,
            open_channel=to_relay,
            credential=credential,
            inbox=inbox,
            senders=registry.sender_by_account,
            clock=clock,
            random=os.urandom,
            settings=_core_settings(settings),
            history=history,
            relay_address=settings.gateway.relay,
            traces=await open_traces("gateway", settings, clock, opened),
        )
    )
    receptions, handover = Receptions(store, inbox, clock), Handover(keyring)
    messaging = Messaging(registry, gateway.outbound, receptions, handover)
    sweeper = Sweeper(
        [Duty(store, gateway.deletions, keep=expiry.KEPT), Duty(books, book_deletions)],
        [keyring, book_keys],
        WaryClock(clock, since_ms=gateway.deletions.newest_ms),
        interval_seconds=settings.store.sweep_seconds,
    )
    rotation = MasterRotation(key_file, protections, [book_keys, keyring])
    server = RpcServer(
        _services(
            messaging,
            ReceivingServicer(registry, receptions, handover),
            IdentitiesServicer(registry, gateway.user_identities),
            BusinessesServicer(registry, gateway.identities, gateway.removal),
        ),
        listen=settings.gateway.listen,
        identity=identity,
        authenticator=registry,
        revocations=registry,
        limits=limits_of(settings),
        reflect=settings.reflection,
    )

    async def finish_removals() -> None:
        await registry.finish_removals(gateway.removal)

    async def drain(grace_s: float) -> None:
        await messaging.drain(grace_s)
        await server.drain(grace_s)
        await gateway.drain()

    composed = Composed(
        server=server,
        health=watch_gateway(
            gateway, store, books, pool, clock, bound_s=settings.health.bound_seconds
        ),
        listen=settings.gateway.listen,
        metrics=settings.gateway.metrics,
        drain=drain,
        running=[store.failed, books.failed, sweeper.run, rotation.run, finish_removals],
    )
    _count(composed.counters, server, messaging, gateway, pool)
    count_restorations(composed.counters, history)
    composed.counters.count(receptions.counters)
    composed.counters.count(handover.counters)
    composed.counters.legs(composed.health)
    time_path(composed.counters, gateway, store, pool)
    return composed


def _primitives() -> str:
    """What the workers' ratchet runs on; only they import it."""
    return "portable" if find_spec("tripleratchet_native") is None else "native"


def _core_settings(settings: Settings) -> GatewaySettings:
    return GatewaySettings(
        pre_key_rotation_ms=settings.gateway.pre_key_rotation_days * DAY_MS,
        pre_key_grace_ms=settings.gateway.pre_key_grace_days * DAY_MS,
        stale_session_ms=settings.gateway.stale_session_days * DAY_MS,
    )


def _services(
    messaging: Messaging,
    receiving: ReceivingServicer,
    identities: IdentitiesServicer,
    businesses: BusinessesServicer,
) -> list[Service]:
    return [
        Service("letterlock.v1.Messaging", messaging, add_messaging_servicer),
        Service(
            "letterlock.v1.Receiving", receiving, receiving_pb2_grpc.add_ReceivingServicer_to_server
        ),
        Service(
            "letterlock.v1.Identities",
            identities,
            identities_pb2_grpc.add_IdentitiesServicer_to_server,
        ),
        Service(
            "letterlock.v1.Businesses",
            businesses,
            businesses_pb2_grpc.add_BusinessesServicer_to_server,
        ),
    ]


def _relay_credentials(ca: Path) -> grpc.ChannelCredentials:
    if not ca.exists():
        raise TlsFault(f"{ca} does not exist: set gateway.relay_ca to what vouches for the relay")
    return grpc.ssl_channel_credentials(read_file(ca, limit=1024 * 1024, fault=TlsFault))


def _count(
    counters: Counters, server: RpcServer, messaging: Messaging, gateway: Gateway, pool: WorkerPool
) -> None:
    counters.gauge("calls", "Calls in flight.", lambda: server.gatekeeper.calls)
    counters.count(server.gatekeeper.denials.counters)
    counters.gauge("streams", "Open Send and Receive streams.", lambda: messaging.open_streams)
    counters.gauge(
        "relay_connected",
        "1 while the relay is connected, else 0.",
        lambda: gateway.uplink.connected,
    )
    counters.gauge(
        "in_hand", "Messages that were not answered yet.", lambda: gateway.outbound.in_hand
    )
    counters.gauge(
        "held",
        "Messages that wait until the business confirms a user's identity key.",
        lambda: gateway.held.count,
    )
    counters.gauge(
        "oldest_unsent_seconds",
        "Age of the oldest message that the relay does not have yet; 0: none waits.",
        lambda: gateway.ages.unsent_s,
    )
    counters.gauge(
        "oldest_unacknowledged_seconds",
        "Age of the oldest event that its business has not acknowledged; 0: none waits.",
        lambda: gateway.ages.unacknowledged_s,
    )
    counters.counter(
        "worker_restarts", "Ratchet processes that were lost and replaced.", lambda: pool.restarts
    )
    counters.count(gateway.counters)
