"""What a role tells of its legs, on a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from letterlockd.errors import EnvironmentFault
from letterlockd.health import Health, watched
from letterlockd.legs import Reading
from structlog.testing import capture_logs

from tests.harness.clock import FakeClock, settle

BOUND = 10.0


class Part:
    """Something that work goes through. `stopped`: nothing comes out; `away`: probes fail."""

    def __init__(self) -> None:
        self.waiting = self.passed = self.refused = 0
        self.probes = 0
        self.stopped = asyncio.Event()
        self.stopped.set()
        self.away = False

    def reading(self) -> Reading:
        return Reading(self.waiting, self.passed, self.refused)

    async def probe(self) -> None:
        self.probes += 1
        if self.away:
            raise EnvironmentFault("away")
        self.waiting += 1
        await self.stopped.wait()
        self.waiting -= 1
        self.passed += 1

    def stop(self) -> None:
        self.stopped.clear()

    def go_on(self) -> None:
        self.stopped.set()


class World:
    """A role with a store, two workers, a relay and a queue; Messaging needs store and workers."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store, self.relay, self.queue = Part(), Part(), Part()
        self.workers = [Part(), Part()]
        self.told: dict[str, bool] = {}
        self.health = Health(
            [
                watched("store", BOUND, self.store.reading, self.store.probe),
                *(watched("worker", BOUND, each.reading, each.probe) for each in self.workers),
                watched("relay", BOUND, self.relay.reading, self.relay.probe),
                watched("queue", BOUND, self.queue.reading),
            ],
            {"Messaging": frozenset({"store", "worker"})},
            self.clock,
            bound_s=BOUND,
            sleep=self.clock.sleep,
        )

    async def report(self, service: str, healthy: bool) -> None:
        self.told[service] = healthy

    async def after(self, seconds: int) -> dict[str, bool]:
        for _ in range(seconds):
            await self.clock.advance(1_000)
        return self.told


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    await world.health.begin(world.report)
    task = asyncio.create_task(world.health.run(world.report))
    await settle()
    try:
        yield
    finally:
        for part in (world.store, world.relay, *world.workers):
            part.go_on()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_begins_with_a_proof_and_not_with_a_promise() -> None:
    world = World()
    world.relay.away = True
    async with running(world):
        assert world.told == {"": False, "Messaging": True}
        world.relay.away = False
        assert await world.after(2) == {"": True, "Messaging": True}


async def test_what_nobody_uses_is_probed_again_and_again() -> None:
    world = World()
    async with running(world):
        assert await world.after(100) == {"": True, "Messaging": True}
        assert 15 <= world.store.probes <= 25


async def test_a_store_that_stops_while_nobody_uses_it_is_found() -> None:
    world = World()
    async with running(world):
        world.store.stop()
        assert await world.after(11) == {"": False, "Messaging": False}
        assert not world.health.proven("store")
        assert world.health.waiting("store") == 1
        world.store.go_on()
        assert await world.after(2) == {"": True, "Messaging": True}


async def test_one_stuck_worker_of_two_is_enough() -> None:
    world = World()
    async with running(world):
        world.workers[1].stop()
        assert await world.after(11) == {"": False, "Messaging": False}
        assert world.health.age_s("worker") > BOUND
        assert world.health.names == ["store", "worker", "relay", "queue"]


async def test_a_relay_that_is_away_leaves_messages_to_be_taken() -> None:
    world = World()
    async with running(world):
        world.relay.away = True
        with capture_logs() as logs:
            assert await world.after(11) == {"": False, "Messaging": True}
            world.relay.away = False
            assert await world.after(2) == {"": True, "Messaging": True}
    assert [(entry["event"], entry["log_level"], entry.get("unproven")) for entry in logs] == [
        ("messages_do_not_move", "warning", ["relay"]),
        ("messages_move", "info", None),
    ]


async def test_a_start_gets_the_bound_before_it_is_a_warning() -> None:
    world = World()
    world.relay.away = True
    world.queue.waiting = 1
    with capture_logs() as logs:
        async with running(world):
            world.queue.waiting = 0
            await world.after(3)
            world.relay.away = False
            await world.after(30)
    assert [(entry["event"], entry["log_level"], entry.get("unproven")) for entry in logs] == [
        ("messages_do_not_move", "info", ["queue", "relay"]),
        ("messages_do_not_move", "info", ["relay"]),
        ("messages_move", "info", None),
    ]


async def test_what_never_moves_after_a_start_becomes_a_warning_once() -> None:
    world = World()
    world.relay.away = True
    with capture_logs() as logs:
        async with running(world):
            await world.after(30)
    assert [(entry["event"], entry["log_level"], entry["unproven"]) for entry in logs] == [
        ("messages_do_not_move", "info", ["relay"]),
        ("messages_do_not_move", "warning", ["relay"]),
    ]


async def test_a_queue_that_holds_work_and_lets_none_out_is_found() -> None:
    world = World()
    async with running(world):
        world.queue.waiting = 3
        assert (await world.after(9))[""]
        assert not (await world.after(2))[""]


async def test_a_bug_in_a_probe_ends_the_role_and_is_not_taken_for_ill_health() -> None:
    world = World()

    async def bug() -> None:
        raise ZeroDivisionError

    health = Health(
        [watched("store", BOUND, world.store.reading, bug)], {}, world.clock, bound_s=BOUND
    )
    failed = await asyncio.gather(health.run(world.report), return_exceptions=True)
    assert isinstance(failed[0], ExceptionGroup)
