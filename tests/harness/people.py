"""People around a running daemon: its operator, businesses, and users with our device SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from letterlock import AdminClient, BusinessClient, Device, Event, MemoryStore, RetryPolicy
from letterlock.content.v1 import content_pb2
from letterlock.device.events import DeviceEvent, IncomingMessage
from letterlock.device.store import DeviceStore
from letterlock.v1 import messaging_pb2

from tests.harness.supervised import Daemon

WAIT_SECONDS = 30
STATUS = messaging_pb2.MessageStatus
ACCEPTED = STATUS.MESSAGE_STATUS_ACCEPTED
SENT = STATUS.MESSAGE_STATUS_SENT
DELIVERED = STATUS.MESSAGE_STATUS_DELIVERED
READ = STATUS.MESSAGE_STATUS_READ
FAILED = STATUS.MESSAGE_STATUS_FAILED
EXPIRED = STATUS.MESSAGE_STATUS_EXPIRED

PROMPT = RetryPolicy(first=0.05, most=0.5)
"""Tests kill what they talk to, and shall not wait long for it afterwards."""

PATIENT = RetryPolicy(first=1.0, most=8.0, attempts=12)
"""For single calls: longer than a role takes to come back on a busy machine."""


def operator(daemon: Daemon) -> AdminClient:
    """A client with the operator's token."""
    return AdminClient(
        daemon.addresses["gateway"],
        daemon.operator_token,
        ca=daemon.ca,
        deadline=WAIT_SECONDS,
        retry=PATIENT,
        jitter=lambda: 0.5,
    )


@dataclass(frozen=True)
class Shop:
    """A business with a number and a token."""

    daemon: Daemon
    business_id: str
    number: str
    token: str = field(repr=False)

    def client(
        self,
        *,
        token: str | None = None,
        number: str | None = None,
        retry: RetryPolicy = PROMPT,
    ) -> BusinessClient:
        """A client of its backend."""
        return BusinessClient(
            self.daemon.addresses["gateway"],
            token or self.token,
            number=number or self.number,
            ca=self.daemon.ca,
            deadline=WAIT_SECONDS,
            retry=retry,
            jitter=lambda: 0.5,
        )


async def open_shop(
    daemon: Daemon, number: str, *, name: str = "Corner shop", retention: float | None = None
) -> Shop:
    """Create a business, give it a number and issue a token, as an operator would."""
    async with operator(daemon) as admin:
        business = await admin.create_business(name, retention=retention)
        await admin.add_number(business.business_id, number)
        issued = await admin.issue_token(business.business_id, label="test")
    return Shop(daemon, business.business_id, number, issued.token)


def verification_code(daemon: Daemon, verification_id: str) -> str:
    """The code that was sent for a verification."""
    return (daemon.data / "verification" / verification_id).read_text().strip()


async def register(daemon: Daemon, device: Device, number: str) -> None:
    """Verify the number and make, or take over, its account."""
    verification = await device.request_verification(number)
    await device.register(number, verification, verification_code(daemon, verification))


def new_device(
    daemon: Daemon,
    *,
    store: DeviceStore | None = None,
    one_time_pre_keys: int = 10,
    channel: grpc.aio.Channel | None = None,
) -> Device:
    """A device that belongs to nobody yet."""
    return Device(
        daemon.addresses["relay"],
        store=store or MemoryStore(),
        ca=daemon.ca if channel is None else None,
        channel=channel,
        one_time_pre_keys=one_time_pre_keys,
        deadline=WAIT_SECONDS,
        retry=PROMPT,
    )


@asynccontextmanager
async def user(
    daemon: Daemon,
    number: str,
    *,
    store: DeviceStore | None = None,
    connect: bool = True,
    one_time_pre_keys: int = 10,
    channel: grpc.aio.Channel | None = None,
) -> AsyncIterator[Device]:
    """A user with this number: registered, and connected unless told otherwise."""
    device = new_device(daemon, store=store, one_time_pre_keys=one_time_pre_keys, channel=channel)
    async with device:
        await register(daemon, device, number)
        if connect:
            await device.connect()
        yield device


def forget_sessions(device: Device) -> None:
    """Leave a device with its keys alone, as if it were restored from its first day's copy."""
    assert device._state is not None
    sessions = device._state.sessions
    for account_id, devices in sessions._records.items():
        sessions.forget(account_id, list(devices))


async def next_event(device: Device) -> DeviceEvent:
    """The next event of a device; a failure when none comes."""
    async with asyncio.timeout(WAIT_SECONDS):
        return await device.next_event()


async def next_message(device: Device) -> IncomingMessage:
    """The next message of a device, acknowledged; other events are passed over."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            event = await device.next_event()
            if isinstance(event, IncomingMessage):
                event.ack()
                return event


@dataclass
class Collected:
    """What a business's Receive stream gave, acknowledged as it came."""

    events: list[Event] = field(default_factory=list)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    failures: dict[str, messaging_pb2.Failure] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def texts(self) -> list[tuple[str, str]]:
        """(user id, text) of each message that has one, in order."""
        return [
            (event.message.user_id, event.text)
            for event in self.events
            if event.message is not None and event.text is not None
        ]

    @property
    def contents(self) -> list[content_pb2.Content]:
        """The content of each message, in order."""
        return [event.content for event in self.events if event.content is not None]

    def kinds(self) -> set[str]:
        """Kinds of events that came."""
        return {event.kind for event in self.events}

    def reached(self, message_id: str, status: int) -> Callable[[], bool]:
        """Whether a message has come to a status, to be asked again and again."""
        return lambda: status in self.statuses.get(message_id, [])

    def is_delivered(self, message_id: str) -> bool:
        """Whether a message was told as DELIVERED, once and in order. SENT may be left out where
        the two are one change."""
        return self.statuses.get(message_id) in ([SENT, DELIVERED], [DELIVERED])

    def add(self, event: Event) -> None:
        """Take an event, and acknowledge it."""
        self.events.append(event)
        if event.status is not None:
            self.statuses.setdefault(event.status.message_id, []).append(event.status.status)
            if event.status.HasField("failure"):
                self.failures[event.status.message_id] = event.status.failure
        event.ack()
        self.changed.set()

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait for something to have happened; a failure when it does not."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not happened():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            kinds = [event.kind for event in self.events]
            raise AssertionError(f"did not happen; events: {kinds}, {self.statuses}") from None


@asynccontextmanager
async def receiving(business: BusinessClient) -> AsyncIterator[Collected]:
    """Collect the events of a business number in the background."""
    collected = Collected()
    async with business.receive() as events:

        async def collect() -> None:
            async for event in events:
                collected.add(event)

        task = asyncio.create_task(collect())
        try:
            yield collected
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
