"""The gateway's core put together: what starts with what, and in which order it ends.

    async with Gateway.open(...) as gateway:  gateway.outbound, gateway.identities, …

    drain():  refuse new messages ─▶ those in hand are answered ─▶ statuses are committed
    end:      uplink ─▶ inbound, sending, repair, first contacts ─▶ lanes ─▶ statuses

Store, keyring, pool and inbox are the composition root's: opened before this and closed after it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Self

import grpc.aio
from letterlock.relay.v1 import mailbox_pb2

from letterlockd.clock import Clock, WaryClock
from letterlockd.gateway import restored
from letterlockd.gateway.ages import Ages
from letterlockd.gateway.contacts import Contacts
from letterlockd.gateway.counters import Counters
from letterlockd.gateway.expiry import Expiry
from letterlockd.gateway.first_contacts import FirstContacts
from letterlockd.gateway.healing import Healing
from letterlockd.gateway.held import Held
from letterlockd.gateway.identities import Identities
from letterlockd.gateway.inbound import Inbound
from letterlockd.gateway.inbox import Inbox
from letterlockd.gateway.incoming import Mending
from letterlockd.gateway.lanes import Desk, Lanes
from letterlockd.gateway.milestones import Milestones
from letterlockd.gateway.numbers import NumberBook, SenderLookup
from letterlockd.gateway.outbound import Outbound
from letterlockd.gateway.outbox import Outbox
from letterlockd.gateway.prekeys import PreKeyStock
from letterlockd.gateway.progress import Progress
from letterlockd.gateway.removal import Removal
from letterlockd.gateway.renewals import Renewals
from letterlockd.gateway.repair import Repair
from letterlockd.gateway.rotation import Rotation, Schedule
from letterlockd.gateway.rounds import Pool
from letterlockd.gateway.sending import Sending
from letterlockd.gateway.settings import GatewaySettings
from letterlockd.gateway.user_identities import UserIdentities
from letterlockd.legs import Reading
from letterlockd.sealing.deletions import Deletions
from letterlockd.sealing.keyring import Keyring
from letterlockd.store.history import History
from letterlockd.store.port import Store
from letterlockd.traces import Traces
from letterlockd.uplink import Answered, Uplink

__all__ = ["Gateway"]


class Gateway:
    """All rooms of the core. Open with `Gateway.open`."""

    def __init__(
        self,
        *,
        store: Store,
        keyring: Keyring,
        pool: Pool,
        channel: grpc.aio.Channel,
        relay_address: str,
        credential: str,
        inbox: Inbox,
        outbox: Outbox,
        held: Held,
        senders: SenderLookup,
        clock: Clock,
        random: Callable[[int], bytes],
        settings: GatewaySettings,
        history: History,
        deletions: Deletions,
        traces: Traces | None,
    ) -> None:
        self.counters = counters = Counters()
        self.deletions = deletions
        self.outbox = outbox
        self.held = held
        self.inbox = inbox
        self.uplink: Uplink[int] = Uplink(
            channel,
            credential,
            window=settings.window,
            fraction=secrets.SystemRandom().random,
            past=history,
            address=relay_address,
        )
        numbers, contacts = NumberBook(store, keyring, senders), Contacts(store, clock)
        relay = self.uplink.calls
        self.milestones = Milestones(clock, counters, traces)
        self.progress = Progress(store, inbox, clock, self.milestones)
        desk = Desk(
            store,
            pool,
            inbox,
            outbox,
            self.progress,
            clock,
            counters,
            generation=history.generation,
            stale_session_ms=settings.stale_session_ms,
            traces=traces,
        )
        self.lanes = Lanes(desk, batch=settings.lane_batch)
        self.pre_keys = PreKeyStock(
            store=store,
            keyring=keyring,
            pool=pool,
            directory=relay,
            numbers=numbers,
            counters=counters,
            recount_seconds=settings.recount_seconds,
        )
        self.rotation = Rotation(
            store=store,
            keyring=keyring,
            pool=pool,
            directory=relay,
            numbers=numbers,
            clock=clock,
            counters=counters,
            schedule=Schedule(settings.pre_key_rotation_ms, settings.pre_key_grace_ms),
            look_seconds=settings.rotation_look_seconds,
            withdrawn=self.pre_keys.check,
        )
        self.identities = Identities(
            store=store,
            keyring=keyring,
            pool=pool,
            relay=relay,
            random=random,
            finished=self.pre_keys.check,
        )
        self._first_contacts = FirstContacts(relay, contacts, self.lanes.put, counters)
        self.outbound = Outbound(
            store=store,
            keyring=keyring,
            numbers=numbers,
            contacts=contacts,
            outbox=outbox,
            clock=clock,
            random=random,
            counters=counters,
            max_in_hand=settings.max_in_hand,
            max_outbox=settings.max_outbox,
        )
        self.outbound.connect(self.lanes.put, self._first_contacts)
        self._repair = Repair(
            source=relay,
            numbers=numbers,
            keyring=keyring,
            outbox=outbox,
            held=held,
            put=self.lanes.put,
            counters=counters,
        )
        self.user_identities = UserIdentities(
            numbers=numbers,
            contacts=contacts,
            keyring=keyring,
            held=held,
            outbox=outbox,
            put=self.lanes.put,
        )
        self.sending = Sending(
            outbox,
            self.uplink,
            self.progress,
            clock,
            max_unanswered=settings.max_unanswered,
            repair=self._repair.add,
            renew=self._repair.renew,
            traces=traces,
        )
        self._repair.connect(self.sending)
        renewals = Renewals(clock)
        self._healing = Healing(
            store=store,
            keyring=keyring,
            outbox=outbox,
            renewals=renewals,
            clock=clock,
            random=random,
            counters=counters,
            put=self.lanes.put,
            fetch=self._repair.introduce,
        )
        self.inbound = Inbound(
            store=store,
            keyring=keyring,
            numbers=numbers,
            contacts=contacts,
            progress=self.progress,
            clock=clock,
            counters=counters,
            senders=senders,
            put=self.lanes.put,
            acknowledge=self.uplink.acknowledge,
            keys_used=self.pre_keys.used,
            mending=Mending(outbox, renewals, random),
            healing=self._healing,
            traces=traces,
        )
        self.removal = Removal(
            store=store,
            keyring=keyring,
            numbers=numbers,
            held=held,
            relay=relay,
            in_hand=self.outbound.holds,
        )
        self.ages = Ages(store, clock)
        self.expiry = Expiry(
            store,
            self.sending,
            self.progress,
            held,
            inbox,
            WaryClock(clock),
            counters,
            deletions,
            seconds=settings.expiry_seconds,
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        store: Store,
        keyring: Keyring,
        pool: Pool,
        open_channel: Callable[[], grpc.aio.Channel],
        credential: str,
        inbox: Inbox,
        senders: SenderLookup,
        clock: Clock,
        random: Callable[[int], bytes],
        settings: GatewaySettings,
        history: History,
        relay_address: str = "",
        traces: Traces | None = None,
    ) -> AsyncIterator[Self]:
        """A running gateway. A fault of a task (a lost store) ends the context with it."""
        await restored.settle(store, history)
        async with open_channel() as channel:
            gateway = cls(
                store=store,
                keyring=keyring,
                pool=pool,
                channel=channel,
                relay_address=relay_address,
                credential=credential,
                inbox=inbox,
                outbox=await Outbox.open(store, generation=history.generation),
                held=await Held.open(store, settings.max_held),
                senders=senders,
                clock=clock,
                random=random,
                settings=settings,
                history=history,
                deletions=await Deletions.open(store, keyring),
                traces=traces,
            )
            async with gateway._running():
                yield gateway

    def answered(self, answers: Sequence[Answered[int]]) -> None:
        """`Traffic`: the relay answered submissions."""
        self.sending.answered(answers)

    def delivered(self, items: Sequence[mailbox_pb2.Item], epoch: int) -> None:
        """`Traffic`: the relay delivered items."""
        self.inbound.delivered(items, epoch)

    def lost(self) -> None:
        """`Traffic`: the stream ended."""
        self.sending.lost()

    def taking(self) -> Reading:
        """Messages of businesses that are not answered yet, and those that are."""
        counters = self.counters
        answered = counters.accepted + counters.repeated + counters.refused
        return Reading(self.outbound.in_hand, answered)

    def to_relay(self) -> Reading:
        """Messages that the relay has yet to take, and its answers; while there are none, its
        word."""
        submissions = self.sending.reading
        return submissions._replace(passed=submissions.passed + self.uplink.proofs)

    async def drain(self) -> None:
        """Take no new messages; return when those in hand are answered and committed. What is in
        the outbox stays there for the next start."""
        self.outbound.drain()
        await self.outbound.idle()
        await self.progress.idle()

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        # Ended in this order: what feeds before what is fed.
        tasks = (
            self.uplink.run(self),
            self.ages.run(),
            self.expiry.run(),
            self.pre_keys.run(),
            self.rotation.run(),
            self.inbound.run(),
            self.sending.run(),
            self._repair.run(),
            self._healing.run(),
            self._first_contacts.run(),
            self.lanes.run(),
            self.progress.run(),
        )
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(task) for task in tasks]
            try:
                yield
            finally:
                for task in running:
                    task.cancel()
                    await asyncio.wait({task})
