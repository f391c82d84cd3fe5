"""Looks at all legs, probes those that nobody uses, and tells what is healthy.

    look ──▶ read each leg ──▶ probe what is due (beside each other, bounded)
      ▲            └──▶ services whose legs are all proven ──▶ report, log what changed
      └── sleep

Knows neither gRPC nor what a leg is made of; `legs` decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from letterlockd.clock import Clock
from letterlockd.errors import LetterlockError
from letterlockd.legs import Leg, Reading

__all__ = ["Health", "Watched", "watched"]

_log = structlog.get_logger(__name__)

_LOOKS_PER_BOUND = 10

Report = Callable[[str, bool], Awaitable[None]]
"""Told of each service, and whether it is healthy. The name "" stands for the role."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A leg with where it is read and, if it can be, probed. A probe raises what it fails with; its
    success is to show in the reading."""

    leg: Leg
    read: Callable[[], Reading]
    probe: Callable[[], Awaitable[object]] | None = None


def watched(
    name: str,
    bound_s: float,
    read: Callable[[], Reading],
    probe: Callable[[], Awaitable[object]] | None = None,
) -> Watched:
    """A leg of this name; several may share one, then the worst of them counts."""
    return Watched(Leg(name, bound_s, probed=probe is not None), read, probe)


class Health:
    """A role's. `services`: the legs that each needs, by name; the role itself needs all."""

    def __init__(
        self,
        legs: Sequence[Watched],
        services: Mapping[str, frozenset[str]],
        clock: Clock,
        *,
        bound_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._legs = legs
        self._services = {"": frozenset(each.leg.name for each in legs), **services}
        self._clock = clock
        self._bound_s = bound_s
        self._sleep = sleep
        self._told: dict[str, bool] = {}
        self._logged: tuple[frozenset[str], bool] | None = None
        self._starts_until = clock.monotonic() + bound_s
        self._probing: set[Leg] = set()

    @property
    def names(self) -> Sequence[str]:
        """The names of the legs, once each."""
        return list(dict.fromkeys(each.leg.name for each in self._legs))

    def age_s(self, name: str) -> float:
        """The age of a leg's proof now."""
        now = self._clock.monotonic()
        return max(each.leg.age_s(now) for each in self._legs if each.leg.name == name)

    def waiting(self, name: str) -> int:
        """What was on its way through a leg at the last look."""
        return sum(each.leg.waiting for each in self._legs if each.leg.name == name)

    def proven(self, name: str) -> bool:
        """Whether a leg is proven now."""
        now = self._clock.monotonic()
        return all(each.leg.proven(now) for each in self._legs if each.leg.name == name)

    async def begin(self, report: Report) -> None:
        """Prove what can be proven at once, and tell."""
        await asyncio.gather(*(self._probe(each) for each in self._due()))
        self._due()
        await self._tell(report)

    async def run(self, report: Report) -> None:
        """Look until cancelled."""
        async with asyncio.TaskGroup() as probes:
            while True:
                for each in self._due():
                    probes.create_task(self._probe(each))
                await self._tell(report)
                await self._sleep(self._bound_s / _LOOKS_PER_BOUND)

    def _due(self) -> list[Watched]:
        """Look at every leg; those that want a probe."""
        now = self._clock.monotonic()
        return [
            each
            for each in self._legs
            if each.leg.look(now, each.read()) and each.leg not in self._probing
        ]

    async def _probe(self, each: Watched) -> None:
        if each.probe is None:
            return
        self._probing.add(each.leg)
        try:
            with suppress(LetterlockError, TimeoutError):  # no proof: that is all there is to know
                async with asyncio.timeout(self._bound_s):
                    await each.probe()
        finally:
            self._probing.discard(each.leg)

    async def _tell(self, report: Report) -> None:
        now = self._clock.monotonic()
        unproven = frozenset(each.leg.name for each in self._legs if not each.leg.proven(now))
        starting = bool(unproven) and now < self._starts_until
        if (unproven, starting) != self._logged:
            _log_change(unproven, starting=starting)
            self._logged = unproven, starting
        for service, needed in self._services.items():
            healthy = not needed & unproven
            if healthy != self._told.get(service):
                self._told[service] = healthy
                await report(service, healthy)


def _log_change(unproven: frozenset[str], *, starting: bool) -> None:
    if not unproven:
        _log.info("messages_move")
    else:  # at the start the relay is only just being called, and what was restored is settled
        tell = _log.info if starting else _log.warning
        tell("messages_do_not_move", unproven=sorted(unproven))
