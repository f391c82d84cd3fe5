"""The Messaging servicer in a real gRPC server on loopback, over fakes of the rooms below it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from letterlock.content.v1 import content_pb2
from letterlock.v1 import messaging_pb2, messaging_pb2_grpc, receiving_pb2_grpc
from letterlock.v1.messaging_pb2 import OutgoingMessage, SendResult
from letterlockd.errors import Forbidden, NotFound, Unauthenticated
from letterlockd.gateway.handover import Handover
from letterlockd.gateway.inbox import Inbox
from letterlockd.gateway.inbox_rows import INBOX_TABLES
from letterlockd.gateway.reception import Receptions
from letterlockd.gateway.references import ReferenceKey
from letterlockd.model.ids import AccountId, BusinessId, MessageId, Pseudonym
from letterlockd.model.sender import Sender
from letterlockd.records.v1.inbox_pb2 import StoredEvent
from letterlockd.registry.principals import Principal
from letterlockd.rpc.interceptors import Gatekeeper
from letterlockd.rpc.messaging import Messaging, add_messaging_servicer
from letterlockd.rpc.receiving import ReceivingServicer
from letterlockd.sealing.errors import KeyDestroyed
from letterlockd.sealing.keyring import DayKey
from letterlockd.sealing.seal import seal
from letterlockd.store.memory import MemoryStore

from tests.harness.channels import OWN_CONNECTION
from tests.harness.clock import FakeClock

BUSINESS = BusinessId(b"b" * 16)
ACCOUNT = AccountId(b"a" * 16)
USER = Pseudonym(b"u" * 16)
NUMBER = "+4915123456789"
USER_NUMBER = "+4915112345678"
RETENTION_MS = 3_600_000
TOKEN = (("authorization", "Bearer good"),)
DAY_KEY = DayKey(b"dayidday", b"k" * 32)


class FakeRegistry:
    """One token, one business, two numbers of it."""

    def __init__(self) -> None:
        self.retention_ms = RETENTION_MS
        self.cuts: list[Callable[[], None]] = []
        self.removals: list[Callable[[], None]] = []

    async def authenticate(self, bearer: str) -> object:
        if bearer != "good":
            raise Unauthenticated("unknown token")
        return Principal(BUSINESS, "token")

    async def sender(self, principal: Principal, business_number: str) -> Sender:
        if business_number != NUMBER:
            raise Forbidden("the token does not reach this business number")
        return Sender(BUSINESS, ACCOUNT, NUMBER, self.retention_ms)

    def watch(self, caller: object, revoked: Callable[[], None]) -> Callable[[], None]:
        self.cuts.append(revoked)
        return lambda: self.cuts.remove(revoked)

    def watch_number(self, account: AccountId, removed: Callable[[], None]) -> Callable[[], None]:
        self.removals.append(removed)
        return lambda: self.removals.remove(removed)

    def remove_number(self) -> None:
        for cut in tuple(self.removals):
            cut()

    def revoke(self) -> None:
        for cut in tuple(self.cuts):
            cut()


class FakeOutbound:
    """Accepts at once, or, while `holding`, when `release` is called. Never waits."""

    def __init__(self) -> None:
        self.holding = False
        self.seen: list[OutgoingMessage] = []
        self.held: list[tuple[list[SendResult], Callable[[list[SendResult]], None]]] = []
        self.arrived = asyncio.Condition()

    async def submit(
        self,
        sender: Sender,
        messages: Sequence[OutgoingMessage],
        answer: Callable[[list[SendResult]], None],
    ) -> None:
        self.seen += messages
        results = [accepted(message.idempotency_key) for message in messages]
        if self.holding:
            self.held.append((results, answer))
        else:
            answer(results)
        async with self.arrived:
            self.arrived.notify_all()

    async def message(
        self, sender: Sender, *, message_id: MessageId | None, idempotency_key: str | None
    ) -> messaging_pb2.Message:
        for message in self.seen:
            if message.idempotency_key == idempotency_key:
                return messaging_pb2.Message(idempotency_key=idempotency_key)
        raise NotFound("no such message")

    async def until_seen(self, count: int) -> None:
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.seen) >= count)

    def release(self) -> None:
        self.holding = False
        held, self.held = self.held, []
        for results, answer in held:
            answer(results)


class FakeDayKeys:
    """One day key, until it is destroyed."""

    def __init__(self) -> None:
        self.destroyed = False

    async def day_key_by_id(self, scope: bytes, id: bytes) -> DayKey:  # noqa: A002
        if self.destroyed or id != DAY_KEY.id:
            raise KeyDestroyed("the key is destroyed")
        return DAY_KEY


@dataclass
class Room:
    """What a test can reach."""

    stub: messaging_pb2_grpc.MessagingStub
    messaging: Messaging
    receiving: receiving_pb2_grpc.ReceivingStub
    registry: FakeRegistry
    outbound: FakeOutbound
    inbox: Inbox
    store: MemoryStore
    day_keys: FakeDayKeys
    handover: Handover
    receptions: Receptions
    clock: FakeClock
    port: int

    def send(self):
        return self.stub.Send(metadata=TOKEN)

    def receive(self):
        return self.stub.Receive(metadata=TOKEN)

    async def arrive(self, *events: StoredEvent) -> None:
        """Record events in one commit, as the gateway's inbound side does."""
        expires = self.clock.now_ms() + RETENTION_MS
        staged = self.inbox.stage(ACCOUNT, events, expires_at_ms=expires)
        await self.store.commit([staged.changes])
        staged.committed()


@asynccontextmanager
async def messaging_room(store: MemoryStore | None = None) -> AsyncIterator[Room]:
    clock = FakeClock()
    store = store or MemoryStore(INBOX_TABLES)
    inbox = await Inbox.open(store, clock)
    registry, outbound, day_keys = FakeRegistry(), FakeOutbound(), FakeDayKeys()
    handover = Handover(day_keys)
    receptions = Receptions(store, inbox, clock)
    messaging = Messaging(registry, outbound, receptions, handover)
    keeper = Gatekeeper(registry, open_methods=(), max_calls=100, revocations=registry)
    size = [("grpc.max_receive_message_length", 8 << 20)]
    server = grpc.aio.server(interceptors=[keeper], options=size)
    add_messaging_servicer(messaging, server)
    receiving = ReceivingServicer(registry, receptions, handover)
    receiving_pb2_grpc.add_ReceivingServicer_to_server(receiving, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OWN_CONNECTION) as channel:
        stub = messaging_pb2_grpc.MessagingStub(channel)
        parts = (registry, outbound, inbox, store, day_keys, handover, receptions, clock, port)
        yield Room(stub, messaging, receiving_pb2_grpc.ReceivingStub(channel), *parts)
    await server.stop(0)


def accepted(key: str) -> SendResult:
    return SendResult(
        idempotency_key=key,
        accepted=messaging_pb2.Accepted(message_id="0" * 32, user_id=USER.hex()),
    )


def text_message(key: str, body: str = "hello", **more: object) -> OutgoingMessage:
    fields: dict[str, object] = {"phone_number": USER_NUMBER, **more}
    return OutgoingMessage(idempotency_key=key, content=text(body), **fields)


def text(body: str) -> content_pb2.Content:
    return content_pb2.Content(text=content_pb2.Text(body=body))


def inbound_event(number: int, body: str = "hi") -> StoredEvent:
    """Message `number` of the user, sealed as a worker does it."""
    message_id = number.to_bytes(16, "big")
    context = ACCOUNT + USER + message_id
    payload = content_pb2.Payload(message_id=message_id, content=text(body)).SerializeToString()
    event = StoredEvent(time_ms=1_000 + number, pseudonym=USER)
    event.inbound.device_id = 1
    event.inbound.message_id = message_id
    event.inbound.day_key_id = DAY_KEY.id
    event.inbound.sealed_payload = seal(DAY_KEY.key, payload, context)
    event.inbound.sealed_number = seal(DAY_KEY.key, USER_NUMBER.encode(), context + b"number")
    return event


def status_event(number: int) -> StoredEvent:
    event = StoredEvent(time_ms=1_000 + number, pseudonym=USER)
    message_id = MessageId(number.to_bytes(16, "big"))
    event.status.message_id = message_id
    event.status.reference_key_id = DAY_KEY.id
    event.status.sealed_reference = ReferenceKey.of(DAY_KEY).seal(
        message_id, f"key-{number}", b"tag"
    )
    event.status.status = messaging_pb2.MESSAGE_STATUS_SENT
    return event
