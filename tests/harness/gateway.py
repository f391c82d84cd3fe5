"""A gateway's core in this process: the real relay on a socket, real devices, memory stores, and
the workers' code without their processes.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc.aio
from letterlock.content.v1 import content_pb2
from letterlock.device.device import Device
from letterlock.device.events import DeviceEvent, IncomingMessage
from letterlock.device.store import MemoryStore as DeviceMemory
from letterlock.v1 import messaging_pb2 as api
from letterlockd.clock import Clock
from letterlockd.gateway import tables
from letterlockd.gateway.inbox import Inbox
from letterlockd.gateway.inbox_rows import INBOX_TABLES
from letterlockd.gateway.room import Gateway
from letterlockd.gateway.settings import GatewaySettings
from letterlockd.model.ids import AccountId, BusinessId
from letterlockd.model.sender import Sender
from letterlockd.records.v1 import jobs_pb2
from letterlockd.records.v1.inbox_pb2 import StoredEvent
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.sealing.keyring import Keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.history import HISTORY, History
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Commit, Outcome, Store, StoreFull
from letterlockd.traces import Traces
from letterlockd.uplink import open_channel
from letterlockd.workers.execute import execute

from tests.harness.clock import until
from tests.harness.relay import GATEWAY, Running, memory_store, running_relay

BUSINESS = BusinessId(b"b" * 16)
NUMBER = "+4930123456"
RETENTION_MS = 86_400_000


class GatewayStore(MemoryStore):
    """Counts the commits that were refused because the disk is full."""

    def __init__(self) -> None:
        super().__init__([*tables.TABLES, *INBOX_TABLES, *keyring.TABLES, HISTORY, DELETIONS])
        self.refused = 0

    async def commit(self, commits: Sequence[Commit]) -> list[Outcome]:
        try:
            return await super().commit(commits)
        except StoreFull:
            self.refused += 1
            raise


def gateway_store() -> GatewayStore:
    return GatewayStore()


class LocalPool:
    """Works jobs in this process. `jobs` counts them; `held`, when set, holds them up; `twist`
    changes results."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.jobs = 0
        self.held: asyncio.Event | None = None
        self.twist: Callable[[jobs_pb2.Job, jobs_pb2.JobResult], None] | None = None

    def lane_of(self, conversation: bytes) -> int:
        return sum(conversation) % self.size

    async def run(self, lane: int, job: jobs_pb2.Job) -> jobs_pb2.JobResult:
        self.jobs += 1
        await asyncio.sleep(0)
        if self.held is not None:
            await self.held.wait()
        result = jobs_pb2.JobResult.FromString(execute(job.SerializeToString(), os.urandom, _fail))
        if self.twist is not None:
            self.twist(job, result)
        return result


def _fail(error: BaseException) -> None:
    raise error


class Answers:
    """Collects the results of submits by idempotency key."""

    def __init__(self) -> None:
        self.results: list[api.SendResult] = []
        self._news = asyncio.Event()

    def __call__(self, results: list[api.SendResult]) -> None:
        self.results += results
        self._news.set()

    async def wait(self, count: int) -> list[api.SendResult]:
        while len(self.results) < count:
            self._news.clear()
            await self._news.wait()
        return self.results


@dataclass
class Business:
    """A registered business number on a running gateway."""

    gateway: Gateway
    sender: Sender
    identity_key: bytes
    seen: list[StoredEvent] = field(default_factory=list)
    _read: int = 0

    async def send(self, *messages: api.OutgoingMessage) -> list[api.SendResult]:
        """Submit in one go and wait for all answers."""
        answers = Answers()
        await self.gateway.outbound.submit(self.sender, messages, answers)
        return list(await answers.wait(len(messages)))

    async def events(self, until: Callable[[list[StoredEvent]], bool]) -> list[StoredEvent]:
        """Stored events, read as they come until they satisfy the condition."""
        news = asyncio.Event()
        unlisten = self.gateway.inbox.listen(self.sender.account_id, news.set)
        try:
            while not until(self.seen):
                news.clear()
                page = await self.gateway.inbox.read(self.sender.account_id, self._read, limit=100)
                self._read = page.reached
                self.seen += [item.content for item in page.items]
                if not page.items and not until(self.seen):
                    await news.wait()
        finally:
            unlisten()
        return self.seen

    async def status(self, message_id: str, status: api.MessageStatus.ValueType) -> StoredEvent:
        """Wait until this message is told to have this status."""

        def matching(events: Sequence[StoredEvent]) -> list[StoredEvent]:
            return [
                event
                for event in events
                if event.status.message_id.hex() == message_id and event.status.status == status
            ]

        return matching(await self.events(lambda seen: bool(matching(seen))))[0]

    async def inbound(self, count: int) -> list[StoredEvent]:
        """Wait for so many messages of users."""

        def found(events: Sequence[StoredEvent]) -> list[StoredEvent]:
            return [event for event in events if event.HasField("inbound")]

        return found(await self.events(lambda seen: len(found(seen)) >= count))


def message(
    key: str, *, to: str = "", user: str = "", text: str = "hello", ttl_s: int = 0
) -> api.OutgoingMessage:
    made = api.OutgoingMessage(
        idempotency_key=key, content=content_pb2.Content(text=content_pb2.Text(body=text))
    )
    if to:
        made.phone_number = to
    else:
        made.user_id = user
    if ttl_s:
        made.time_to_live.FromSeconds(ttl_s)
    return made


class Reader:
    """Reads a device's events all the time; acknowledges every message."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.messages: list[IncomingMessage] = []
        self.others: list[DeviceEvent] = []
        self._news = asyncio.Event()

    async def run(self) -> None:
        async for event in self.device.events():
            if isinstance(event, IncomingMessage):
                event.ack()
                self.messages.append(event)
            else:
                self.others.append(event)
            self._news.set()

    async def texts(self, count: int) -> list[str | None]:
        """Wait for so many messages; the texts of all that came."""
        while len(self.messages) < count:
            self._news.clear()
            await self._news.wait()
        return [message.text for message in self.messages]

    @property
    def business(self) -> bytes:
        """The account that wrote last."""
        return self.messages[-1].sender


@dataclass
class World:
    """A relay and what is needed to start gateways and devices at it."""

    folder: Path
    clock: Clock
    relay: Running
    stack: AsyncExitStack
    senders: dict[AccountId, Sender] = field(default_factory=dict)
    devices: list[Device] = field(default_factory=list)

    def channel(self) -> grpc.aio.Channel:
        return open_channel(f"unix:{self.folder}/relay.sock", None)

    def nowhere(self) -> grpc.aio.Channel:
        return open_channel(f"unix:{self.folder}/nobody.sock", None)

    @asynccontextmanager
    async def gateway(
        self,
        store: Store | None = None,
        *,
        pool: LocalPool | None = None,
        settings: GatewaySettings | None = None,
        away: bool = False,
        traces: Traces | None = None,
    ) -> AsyncIterator[Gateway]:
        """A running gateway; with `away` its relay cannot be reached."""
        store = store or gateway_store()
        keys = await Keyring.open(store, FileKeyProvider(self.folder / "gateway.key"), self.clock)

        async def sender_of(account: AccountId) -> Sender | None:
            return self.senders.get(account)

        async with Gateway.open(
            store=store,
            keyring=keys,
            pool=pool or LocalPool(),
            open_channel=self.nowhere if away else self.channel,
            credential=GATEWAY,
            inbox=await Inbox.open(store, self.clock),
            senders=sender_of,
            clock=self.clock,
            random=secrets.token_bytes,
            settings=settings or GatewaySettings(expiry_seconds=3_600.0),
            history=await History.open(store, lambda: 0),
            traces=traces,
        ) as gateway:
            yield gateway

    async def business(
        self, gateway: Gateway, number: str = NUMBER, *, holds: bool = False
    ) -> Business:
        registered = await gateway.identities.register_number(BUSINESS, number, RETENTION_MS)
        sender = Sender(BUSINESS, registered.account_id, number, RETENTION_MS, holds)
        self.senders[registered.account_id] = sender
        return Business(gateway, sender, registered.identity_key)

    def set_policy(self, business: Business, *, holds: bool) -> None:
        """Change what the registry says of a business."""
        account = business.sender.account_id
        self.senders[account] = replace(self.senders[account], hold_identity_changes=holds)

    async def device(self, phone_number: str = "", *, of: Device | None = None) -> Device:
        """A registered device, not connected yet; with `of`, a further one of that account."""
        device = Device(
            "",
            store=DeviceMemory(),
            channel=await self.stack.enter_async_context(self.channel()),
            one_time_pre_keys=2,
            now_ms=self.clock.now_ms,
        )
        await self.stack.enter_async_context(device)
        if of is not None:
            await device.link(await of.create_link())
        else:
            verification = await device.request_verification(phone_number)
            code = self.relay.outbox.codes[verification]
            await device.register(phone_number, verification, code)
        self.devices.append(device)
        return device


async def outbox_empty(gateway: Gateway) -> None:
    """Wait until the relay's answers are committed: a device, and its receipt, may be faster."""
    await until(lambda: not gateway.outbox.count)


@asynccontextmanager
async def reading(*devices: Device) -> AsyncIterator[list[Reader]]:
    """Readers of these devices, connected."""
    readers = [Reader(device) for device in devices]
    for device in devices:
        await device.connect()
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    try:
        yield readers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def running_world(
    folder: Path, clock: Clock, *, relay_traces: Traces | None = None
) -> AsyncIterator[World]:
    async with (
        AsyncExitStack() as outer,
        AsyncExitStack() as stack,
    ):
        relay = await outer.enter_async_context(
            running_relay(folder, memory_store(), clock, traces=relay_traces)
        )
        yield World(folder, clock, relay, stack)
