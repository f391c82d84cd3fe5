"""The relay as a whole: built from its parts, run, drained, closed.

    open ──▶ running ──drain──▶ no streams ──aclose──▶ closed
                │ the store is lost, or a bug
                └──▶ failed: every stream ends, `failed` returns, the process has to exit

Serving it over gRPC is `rpc`'s part; nothing here can reach the ratchet or a private key (I3).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from letterlockd.clock import Clock, WaryClock
from letterlockd.errors import BrokenInvariant, BusyError, LetterlockError
from letterlockd.legs import Reading
from letterlockd.relay.accounts import Device
from letterlockd.relay.bundles import Bundles
from letterlockd.relay.credentials import CredentialAuthenticator
from letterlockd.relay.devices import Devices
from letterlockd.relay.directory import Directory
from letterlockd.relay.intake import Intake
from letterlockd.relay.item_ids import ItemIds
from letterlockd.relay.journal import Journal
from letterlockd.relay.levels import Levels
from letterlockd.relay.mailboxes import Mailboxes
from letterlockd.relay.marks import Marks
from letterlockd.relay.numbers import NumberVault
from letterlockd.relay.pasts import Pasts
from letterlockd.relay.prekeys import PreKeys
from letterlockd.relay.registration import Registration
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.sweeper import Sweeper
from letterlockd.relay.switchboard import Switchboard
from letterlockd.relay.usage import Usage
from letterlockd.relay.verification import Verifications, VerificationSender
from letterlockd.sealing.deletions import Deletions
from letterlockd.sealing.keyring import Keyring
from letterlockd.store.history import History
from letterlockd.store.port import Store, StoreUnavailable
from letterlockd.traces import Traces

__all__ = ["Relay"]


class Relay:
    """One relay over one store. Make it with `Relay.open`; the parts are public for servicers."""

    def __init__(
        self,
        store: Store,
        vault: NumberVault,
        clock: Clock,
        random: Callable[[int], bytes],
        settings: RelaySettings,
        gateways: Mapping[str, str],
        pasts: Pasts,
        marks: Marks,
        verification: VerificationSender,
        deletions: Deletions,
        traces: Traces | None,
    ) -> None:
        self.settings = settings
        self._pasts = pasts
        self._marks = marks
        self.gateway_mailboxes: Mapping[str, int] = pasts.mailboxes
        self.switchboard = Switchboard()
        ids = ItemIds(store)
        self.directory = Directory(
            store,
            vault,
            cached=settings.cached_accounts,
            removed=self._removed,
            next_item_id=lambda: ids.next_id,
        )
        self._ids = ids
        self.authenticator = CredentialAuthenticator(self.directory, gateways)
        self.usage = Usage(store, settings.usage_kept_ms)
        levels = Levels(store, settings.cached_accounts)
        self._journal = Journal(
            store, ids, levels, self.usage, self.switchboard, clock, settings, traces
        )
        self.counters = self._journal.counters
        intake = Intake(
            store, self.directory, levels, ids, self._journal, self.switchboard, clock, settings
        )
        self.mailboxes = Mailboxes(
            store,
            self.directory,
            pasts,
            marks,
            levels,
            intake,
            self._journal,
            self.switchboard,
            clock,
            settings,
        )
        self.pre_keys = PreKeys(store, self.directory)
        self.bundles = Bundles(store, self.directory, clock, settings)
        self.verifications = Verifications(store, vault, verification, clock, random, settings)
        self.registration = Registration(
            store,
            self.directory,
            self.pre_keys,
            self.verifications,
            vault,
            clock,
            random,
            settings,
        )
        self.devices = Devices(store, self.directory, clock, random, settings)
        self.sweeper = Sweeper(
            store,
            self._journal,
            self.switchboard,
            deletions,
            self.verifications,
            WaryClock(clock),
            settings,
        )
        self._failure: LetterlockError | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        store: Store,
        keyring: Keyring,
        clock: Clock,
        random: Callable[[int], bytes],
        settings: RelaySettings,
        gateways: Mapping[str, str],
        verification: VerificationSender,
        history: History,
        traces: Traces | None = None,
    ) -> Self:
        """A running relay. `gateways` maps gateway ids to the hex SHA-256 of their credentials.

        Raises `EnvironmentFault` (GATEWAY_HASH_INVALID), and what the store raises.
        """
        vault = await NumberVault.open(keyring, random)
        pasts = await Pasts.open(store, sorted(gateways))
        deletions = await Deletions.open(store, keyring)
        relay = cls(
            store,
            vault,
            clock,
            random,
            settings,
            gateways,
            pasts,
            await Marks.open(keyring, history, clock, random),
            verification,
            deletions,
            traces,
        )
        await relay._ids.ensure(1)
        relay._task = asyncio.create_task(relay._run(), name="relay")
        return relay

    @property
    def mailing(self) -> Reading:
        """See `Journal.reading`."""
        return self._journal.reading

    async def failed(self) -> LetterlockError | None:
        """Wait for the end of the relay: what it failed with, or None after `aclose`."""
        if self._task is not None:
            await asyncio.wait([self._task])
        return self._failure

    async def drain(self, grace_seconds: float) -> None:
        """Refuse new streams, tell the open ones, and let them end; those that have not within the
        grace are cut."""
        try:
            async with asyncio.timeout(grace_seconds):
                await self.mailboxes.drain(int(grace_seconds * 1000))
        except TimeoutError:
            self.switchboard.end_all(
                BusyError("the relay has stopped", retry_after_ms=1_000, reason="DRAINING")
            )

    async def aclose(self) -> None:
        """Commit what was taken, then stop. The store stays open: it is the caller's."""
        if self._task is None:
            return
        idle = asyncio.ensure_future(self._journal.idle())
        await asyncio.wait([idle, self._task], return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        self._task.cancel()
        await asyncio.wait([idle, self._task])
        with contextlib.suppress(StoreUnavailable):  # then it is forgotten, as after a kill
            await self._pasts.write()

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._journal.run())
                group.create_task(self.sweeper.run())
                group.create_task(self._pasts.run())
                group.create_task(self._marks.watch())
        except BaseExceptionGroup as failures:
            self._failure = _told_of(failures)
            self.switchboard.end_all(self._failure)

    def _removed(self, devices: Sequence[Device]) -> None:
        self.switchboard.removed(devices)
        self.sweeper.wake()


def _told_of(failures: BaseExceptionGroup[BaseException]) -> LetterlockError:
    """The first failure, as something that may be told; what is not of our tree is a bug."""
    first: BaseException = failures
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    if isinstance(first, LetterlockError):
        return first
    bug = BrokenInvariant("the relay failed")
    bug.__cause__ = first
    return bug
