"""The faults: each strikes a running site, and is over when its function returns.

A fault that waits for something to happen (a failpoint that is passed, say) is cancelled when the
traffic is over, and takes itself back. `CATALOGUE` names them all; a name is enough to repeat one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import signal
from collections.abc import Awaitable, Callable, Mapping

import psutil

from tests.harness.link import DOWN, UP
from tests.harness.site import FAILPOINTS, ROLES, STORES, Site

Strike = Callable[[Site, random.Random], Awaitable[None]]

SHORT, LONG = 0.2, 1.0
"""Seconds that a fault lasts: long enough to be met by the traffic, short enough for many rounds.
What takes long in the world (hours without a relay) is told to the daemon by its clock."""

BUSY_STORES = ("gateway", "relay")
"""Those that every message goes through."""

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
FAR_DAYS = 5
"""Below the seven days after which pre-keys are replaced, and far below the retention."""


def dies_at(point: str) -> Strike:
    """kill -9 of the process that passes the point, at that place."""

    async def strike(site: Site, seed: random.Random) -> None:
        await site.passed(point)

    return strike


def cannot_commit(store: str) -> Strike:
    """The store's disk refuses to write (a read-only or failing disk): the commit ends in an
    error, the committer gives up, and so does its role."""

    async def strike(site: Site, seed: random.Random) -> None:
        await site.passed(f"store.{store}.commit.before", "error")

    return strike


def killed(find: Callable[[Site, random.Random], psutil.Process]) -> Strike:
    """kill -9 of a process, wherever it is."""

    async def strike(site: Site, seed: random.Random) -> None:
        await asyncio.sleep(seed.uniform(0, SHORT))
        with _gone():
            find(site, seed).kill()

    return strike


def stopped(find: Callable[[Site, random.Random], psutil.Process]) -> Strike:
    """A process that hangs for a while, as one whose disk does not answer, and goes on."""

    async def strike(site: Site, seed: random.Random) -> None:
        with _gone():
            process = find(site, seed)
            process.suspend()
            try:
                await asyncio.sleep(seed.uniform(SHORT, LONG))
            finally:
                process.resume()

    return strike


def asked_to_stop(role: str) -> Strike:
    """SIGTERM: it drains, ends, and is started again."""

    async def strike(site: Site, seed: random.Random) -> None:
        site.roles[role].signal(signal.SIGTERM)

    return strike


async def power_cut(site: Site, seed: random.Random) -> None:
    """All processes are gone at the same moment."""
    everybody: list[psutil.Process] = []
    with _gone():
        everybody = site.everybody()
    for process in everybody:
        with _gone():
            process.suspend()  # so that nobody has time to notice
    for process in everybody:
        with _gone():
            process.kill()


def away_for_hours(role: str) -> Strike:
    """A role is gone while the clocks of both move on by hours."""

    async def strike(site: Site, seed: random.Random) -> None:
        async with site.roles[role].away():
            await asyncio.sleep(seed.uniform(SHORT, LONG))
            hours = seed.randrange(1, 12) * HOUR_MS
            for name in ROLES:
                site.set_clock(name, hours)

    return strike


def clock_jumps(*roles: str, days: int) -> Strike:
    """The wall clock jumps, either way, and later back again."""

    async def strike(site: Site, seed: random.Random) -> None:
        offset = seed.choice((-1, 1)) * seed.randrange(HOUR_MS, days * DAY_MS)
        for role in roles:
            site.set_clock(role, offset)
        await asyncio.sleep(seed.uniform(SHORT, LONG))
        for role in roles:
            site.set_clock(role, 0)

    return strike


def full_disk(store: str, *, wholly: bool) -> Strike:
    """The store's file may not grow any more, or not even be written to but for its first pages:
    the kernel refuses, as a full device does."""

    async def strike(site: Site, seed: random.Random) -> None:
        with _gone():
            committer = site.committer(store)
            size = (site.data / store / "data.mdb").stat().st_size
            _, hard = committer.rlimit(psutil.RLIMIT_FSIZE)
            committer.rlimit(psutil.RLIMIT_FSIZE, (8192 if wholly else size, hard))
            try:
                await asyncio.sleep(seed.uniform(SHORT, LONG))
            finally:
                committer.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))

    return strike


def cut(link: str) -> Strike:
    """Connections are reset, a few times."""

    async def strike(site: Site, seed: random.Random) -> None:
        for _ in range(seed.randrange(1, 4)):
            site.links[link].cut()
            await asyncio.sleep(seed.uniform(0, SHORT))

    return strike


def unreachable(link: str) -> Strike:
    """Connections are reset, and new ones, too, for a while."""

    async def strike(site: Site, seed: random.Random) -> None:
        async with site.links[link].refusing():
            await asyncio.sleep(seed.uniform(SHORT, LONG))

    return strike


def slow(link: str) -> Strike:
    """A few kilobytes a second."""

    async def strike(site: Site, seed: random.Random) -> None:
        async with site.links[link].slow(seed.uniform(0.01, 0.1)):
            await asyncio.sleep(LONG)

    return strike


def half_open(link: str) -> Strike:
    """Connections that both ends take for good carry nothing any more; then they are reset. New
    ones work."""

    async def strike(site: Site, seed: random.Random) -> None:
        async with site.links[link].held(UP, DOWN):
            await asyncio.sleep(seed.uniform(SHORT, LONG))
            site.links[link].cut()

    return strike


def never_reads(link: str) -> Strike:
    """Who connected here does not read: the server's buffers fill up."""

    async def strike(site: Site, seed: random.Random) -> None:
        async with site.links[link].held(DOWN):
            await asyncio.sleep(LONG)

    return strike


async def second_daemon(site: Site, seed: random.Random) -> None:
    """Another one on the same folder: refused with exit code 4, and the first is not disturbed. If
    the first dies meanwhile, the second may have the folder, and is stopped at once."""
    role = site.roles[seed.choice(ROLES)]
    second = await site.start(role.name, "--set", f"{role.name}.listen=127.0.0.1:0")
    assert second.stderr is not None
    text = b""
    try:
        async for line in second.stderr:
            text += line
            if b'"serving"' in line:
                second.kill()
    finally:
        if second.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                second.kill()
        code = await second.wait()
    refused = code == 4 and b"DATA_FOLDER_LOCKED" in text
    assert refused or b'"serving"' in text, text


def _role(name: str) -> Callable[[Site, random.Random], psutil.Process]:
    return lambda site, seed: site.roles[name].process()


def _committer(store: str) -> Callable[[Site, random.Random], psutil.Process]:
    return lambda site, seed: site.committer(store)


def _worker(site: Site, seed: random.Random) -> psutil.Process:
    workers = site.workers()
    if not workers:
        raise LookupError("workers")
    return seed.choice(workers)


def _gone() -> contextlib.suppress:
    """Another fault of the round may have taken the process already."""
    return contextlib.suppress(psutil.NoSuchProcess, LookupError)


CATALOGUE: Mapping[str, Strike] = {
    **{
        f"dies at {point}": dies_at(point)
        for point in FAILPOINTS
        if "registry" not in point and "healing" not in point
    },
    **{f"cannot commit: {store}": cannot_commit(store) for store in BUSY_STORES},
    **{f"killed: {role}": killed(_role(role)) for role in ROLES},
    **{f"killed: committer of {store}": killed(_committer(store)) for store in STORES},
    "killed: a worker": killed(_worker),
    "power cut": power_cut,
    **{f"hangs: {role}": stopped(_role(role)) for role in ROLES},
    **{f"hangs: committer of {store}": stopped(_committer(store)) for store in BUSY_STORES},
    "hangs: a worker": stopped(_worker),
    **{f"restarted: {role}": asked_to_stop(role) for role in ROLES},
    **{f"away for hours: {role}": away_for_hours(role) for role in ROLES},
    **{f"clock jumps: {role}": clock_jumps(role, days=1) for role in ROLES},
    "clock jumps: both": clock_jumps(*ROLES, days=FAR_DAYS),
    **{f"full disk: {store}": full_disk(store, wholly=False) for store in BUSY_STORES},
    **{f"no write at all: {store}": full_disk(store, wholly=True) for store in BUSY_STORES},
    **{
        f"{name}: {link}": make(link)
        for name, make in (
            ("cut", cut),
            ("unreachable", unreachable),
            ("slow", slow),
            ("half open", half_open),
            ("never reads", never_reads),
        )
        for link in ("business", "devices", "uplink")
    },
    "second daemon": second_daemon,
}
"""Name → fault. What a seed means changes with it."""
