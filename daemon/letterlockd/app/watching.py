"""Which legs the gateway's messages walk, which service needs which, and what of them is timed.

    business ──▶ intake ──▶ worker ──▶ store, space ──▶ relay ──▶ (device)
    business ◀── store  ◀── worker ◀── incoming     ◀── relay
                                   registry: who may do what

A relay that is away makes the role unhealthy, and not `Messaging`: messages are taken, and wait. A
full disk makes `Messaging` unhealthy, and not `Receiving`: acknowledgements are what makes room.
"""

from __future__ import annotations

import functools

from letterlockd.app.parts import COMMIT_TIMES
from letterlockd.clock import Clock
from letterlockd.gateway.room import Gateway
from letterlockd.health import Health, watched
from letterlockd.store.lmdb.front import LmdbStore
from letterlockd.telemetry import Counters
from letterlockd.workers.pool import WorkerPool

__all__ = ["time_path", "watch_gateway"]

_SERVICES = {
    "letterlock.v1.Messaging": frozenset({"registry", "store", "space", "worker"}),
    "letterlock.v1.Receiving": frozenset({"registry", "store"}),
    "letterlock.v1.Identities": frozenset({"registry", "store", "worker"}),
    "letterlock.v1.Businesses": frozenset({"registry", "store"}),
}


def watch_gateway(
    gateway: Gateway,
    store: LmdbStore,
    books: LmdbStore,
    pool: WorkerPool,
    clock: Clock,
    *,
    bound_s: float,
) -> Health:
    """The health of the gateway role; `books` is the registry's store."""
    legs = [
        watched("intake", bound_s, gateway.taking),
        *(
            watched(
                "worker",
                bound_s,
                functools.partial(pool.reading, lane),
                functools.partial(pool.prove, lane),
            )
            for lane in range(pool.size)
        ),
        watched("store", bound_s, store.writer, store.prove),
        watched("space", bound_s, store.space),
        watched("registry", bound_s, books.writer, books.prove),
        watched("relay", bound_s, gateway.to_relay, gateway.uplink.prove),
        watched("incoming", bound_s, lambda: gateway.inbound.reading),
    ]
    return Health(legs, _SERVICES, clock, bound_s=bound_s)


def time_path(counters: Counters, gateway: Gateway, store: LmdbStore, pool: WorkerPool) -> None:
    """Histograms of a message's way."""
    tell, milestones = counters.histogram, gateway.milestones
    tell("accept", "From a message's arrival to its durable acceptance.", milestones.accept_times)
    tell("worker_job", "A ratchet worker's time for one batch.", pool.job_times)
    tell("commit", COMMIT_TIMES, store.commit_times)
    tell(
        "relay_round_trip",
        "From a submission to the relay's answer; one at a time is measured.",
        gateway.uplink.round_trips,
    )
    tell(
        "delivery",
        "From a message's acceptance to the receipt of its device.",
        milestones.delivery_times,
    )
