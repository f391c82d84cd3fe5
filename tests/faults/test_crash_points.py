"""kill -9 at every commit point of the running daemon, judged by a ledger kept outside of it.

A small load runs in both directions through real processes: a Send stream, users that answer, a
Receive stream. In its middle one process kills itself exactly at the point (see
`letterlockd.failpoints`), the daemon comes back by itself, and the load goes on to its end. Then:

- every accepted message reached its user's application, once, and in order;
- every message that a user's device got rid of reached the business, in order, under one event;
- no status of a message went back, and each came to DELIVERED.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from letterlock import BusinessClient, Device, Event, OutgoingMessage
from letterlock.device.events import IncomingMessage
from letterlockd import failpoints

from tests.harness.people import (
    DELIVERED,
    FAILED,
    PATIENT,
    WAIT_SECONDS,
    forget_sessions,
    next_message,
    open_shop,
    operator,
    receiving,
    user,
)
from tests.harness.supervised import Daemon, daemon

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]

POINTS = (
    "gateway.outbound.before_commit",
    "gateway.outbound.after_commit",
    "gateway.sent.before_commit",
    "gateway.sent.after_commit",
    "gateway.inbound.before_commit",
    "gateway.inbound.after_commit",
    "gateway.inbound.after_ack",
    "relay.submit.before_commit",
    "relay.submit.after_commit",
    "relay.ack.before_commit",
    "relay.ack.after_commit",
    "relay.bundle.before_commit",
    "relay.bundle.after_commit",
    "store.gateway.commit.before",
    "store.gateway.commit.after",
    "store.relay.commit.before",
    "store.relay.commit.after",
    "workers.job.received",
    "workers.job.answering",
)
AT_ONCE = (
    ("gateway.outbound.after_commit", "relay.submit.after_commit"),
    ("gateway.inbound.after_commit", "relay.ack.before_commit"),
    ("workers.job.answering", "store.gateway.commit.after", "store.relay.commit.before"),
)
HEALING_POINTS = ("gateway.healing.before_commit", "gateway.healing.after_commit")
"""The first commit of a healing archives the session; what is sent again comes in a later one."""
REGISTRY_POINTS = ("store.registry.commit.before", "store.registry.commit.after")

OLD_USERS, NEW_USERS = 2, 3
TO_EACH = 40
FROM_EACH = 15
ARMED_AFTER = 20
"""Answers on the Send stream before the point is armed: it is passed in the middle of the load."""

_numbers = count(1)


def new_number() -> str:
    return f"+1556{next(_numbers):07d}"


class Armed:
    """The folder in which points are armed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder

    @property
    def environment(self) -> dict[str, str]:
        every = (*POINTS, *HEALING_POINTS, *REGISTRY_POINTS)
        points = ";".join(f"{point}=kill" for point in every)
        return {failpoints.VARIABLE: points, failpoints.ARMED_VARIABLE: str(self._folder)}

    def arm(self, points: Sequence[str]) -> None:
        for point in points:
            (self._folder / point).touch()

    def acted(self, points: Sequence[str]) -> bool:
        """Whether a process took each of the points, and so died at it."""
        return not any((self._folder / point).exists() for point in points)


@dataclass
class Ledger:
    """What was promised and what arrived, kept outside of the daemon."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Idempotency key → message id."""
    read: dict[str, list[str]] = field(default_factory=dict)
    """User's number → texts that their application got."""
    written: dict[str, list[str]] = field(default_factory=dict)
    """User's number → texts that they sent."""
    events: dict[str, Event] = field(default_factory=dict)
    """Event id → event, first come first."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def statuses(self) -> dict[str, list[int]]:
        told: dict[str, list[int]] = {}
        for event in self.events.values():
            if event.status is not None:
                told.setdefault(event.status.message_id, []).append(event.status.status)
        return told

    def heard(self) -> dict[str, list[str]]:
        told: dict[str, list[str]] = {}
        for event in self.events.values():
            if event.message is not None:
                told.setdefault(event.message.phone_number, []).append(event.text or "")
        return told

    async def until_settled(self, sent: int) -> None:
        """Every message delivered and told so, every answer heard; a failure when it does not
        come to that."""
        answers = sum(map(len, self.written.values()))

        def settled() -> bool:
            delivered = sum(DELIVERED in statuses for statuses in self.statuses().values())
            heard = sum(map(len, self.heard().values()))
            read = sum(map(len, self.read.values()))
            return delivered >= sent and heard >= answers and read >= sent

        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not settled():
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            pass  # the judgement below says what is missing

    def judge(self, wanted: dict[str, list[str]]) -> None:
        """`wanted`: user's number → texts sent to them, in order."""
        assert self.read == wanted
        assert self.heard() == self.written
        statuses = self.statuses()
        assert statuses.keys() == set(self.accepted.values())
        for told in statuses.values():
            assert told == sorted(set(told)), "a status went back, or was told twice"
            assert told[-1] == DELIVERED


class Load:
    """The load of one test: a business of its own, known users, and users who are new to it."""

    def __init__(
        self, business: BusinessClient, patient: BusinessClient, business_number: str
    ) -> None:
        self.ledger = Ledger()
        self._business = business
        self._patient = patient
        self._business_number = business_number
        self._users: dict[str, Device] = {}

    async def introduce(self, users: dict[str, Device]) -> None:
        """Users who have a conversation with the business before anything dies."""
        self._users |= users
        for number, device in users.items():
            await device.send_text(self._business_number, "hello")
            self.ledger.written.setdefault(number, []).append("hello")

    async def play(self, newcomers: dict[str, Device], strike: Callable[[], None]) -> None:
        """The whole load, with `strike` called in its middle; returns when all is settled."""
        old = list(self._users)
        self._users |= newcomers
        messages = _interleaved(old, list(newcomers))
        wanted: dict[str, list[str]] = {}
        for message in messages:
            wanted.setdefault(message.to, []).append(message.text or "")
        async with asyncio.TaskGroup() as background:
            tasks = [background.create_task(self._collect())]
            tasks += [
                background.create_task(self._use(number, device))
                for number, device in self._users.items()
            ]
            answers = [background.create_task(self._answer(number)) for number in old]
            await self._send(messages, strike)
            await asyncio.gather(*answers)
            await self.ledger.until_settled(len(messages))
            for task in tasks:
                task.cancel()
        self.ledger.judge(wanted)

    async def _send(self, messages: list[OutgoingMessage], strike: Callable[[], None]) -> None:
        answered = 0
        async with self._business.send_many(messages, window=16) as results:
            async for result in results:
                answered += 1
                if answered == ARMED_AFTER:
                    strike()
                if result.accepted is None:
                    await self._again(messages, result.idempotency_key)
                else:
                    self.ledger.accepted[result.idempotency_key] = result.accepted.message_id

    async def _again(self, messages: list[OutgoingMessage], key: str) -> None:
        """A first contact can be refused for now, while the relay is away: try it until taken."""
        (message,) = [message for message in messages if message.idempotency_key == key]
        accepted = await self._patient.send(to=message.to, text=message.text, idempotency_key=key)
        self.ledger.accepted[key] = accepted.message_id

    async def _answer(self, number: str) -> None:
        for n in range(FROM_EACH):
            text = f"answer {n}"
            await self._users[number].send_text(self._business_number, text)
            self.ledger.written[number].append(text)

    async def _use(self, number: str, device: Device) -> None:
        texts = self.ledger.read.setdefault(number, [])
        async for event in device.events():
            if isinstance(event, IncomingMessage):
                texts.append(event.text or "")
                event.ack()
                self.ledger.news.set()

    async def _collect(self) -> None:
        async with self._business.receive(window=20) as events:
            async for event in events:
                self.ledger.events.setdefault(event.event_id, event)
                event.ack()
                self.ledger.news.set()


def _interleaved(old: list[str], new: list[str]) -> list[OutgoingMessage]:
    """Messages to all in turns; those to newcomers come after the point is armed."""
    messages = [OutgoingMessage(to, f"message {n}") for n in range(TO_EACH) for to in old]
    for n, to in enumerate(new):
        messages.insert(2 * ARMED_AFTER + 5 * n, OutgoingMessage(to, "welcome"))
    return messages


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def armed(tmp_path_factory: pytest.TempPathFactory) -> Armed:
    return Armed(tmp_path_factory.mktemp("faults") / "armed")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory, armed: Armed) -> AsyncIterator[Daemon]:
    """One daemon that dies and comes back; each test has a business and users of its own."""
    patient = ("--set", "serve.max_restarts=1000", "--set", "serve.restart_window_seconds=1")
    folder = tmp_path_factory.mktemp("daemon")
    async with daemon(folder, *patient, environment=armed.environment) as running:
        yield running


@pytest.mark.parametrize("points", [*((point,) for point in POINTS), *AT_ONCE], ids="+".join)
async def test_nothing_is_lost_repeated_or_reordered(
    running: Daemon, armed: Armed, points: Sequence[str]
) -> None:
    await running.whole()
    async with AsyncExitStack() as stack:

        async def users(how_many: int) -> dict[str, Device]:
            numbers = [new_number() for _ in range(how_many)]
            return {
                number: await stack.enter_async_context(user(running, number)) for number in numbers
            }

        shop = await open_shop(running, new_number())
        business = await stack.enter_async_context(shop.client())
        patient = await stack.enter_async_context(shop.client(retry=PATIENT))
        load = Load(business, patient, shop.number)
        await load.introduce(await users(OLD_USERS))
        await load.play(await users(NEW_USERS), lambda: armed.arm(points))
        assert armed.acted(points), "a point was never passed"


@pytest.mark.parametrize("point", HEALING_POINTS)
async def test_a_message_that_is_being_healed_arrives_once(
    running: Daemon, armed: Armed, point: str
) -> None:
    await running.whole()
    shop, number = await open_shop(running, new_number()), new_number()
    async with (
        shop.client(retry=PATIENT) as business,
        receiving(business) as events,
        user(running, number) as ana,
    ):
        await business.send(to=number, text="hello")
        assert (await next_message(ana)).text == "hello"
        forget_sessions(ana)
        armed.arm([point])
        accepted = await business.send(to=number, text="important")
        got = await next_message(ana)
        assert (got.text, got.message_id.hex()) == ("important", accepted.message_id)
        reading = asyncio.create_task(ana.next_event())
        await events.until(events.reached(accepted.message_id, DELIVERED))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert armed.acted([point])
        assert FAILED not in events.statuses[accepted.message_id]


@pytest.mark.parametrize("point", REGISTRY_POINTS)
async def test_a_number_is_there_once_after_a_crash_of_the_registry(
    running: Daemon, armed: Armed, point: str
) -> None:
    await running.whole()
    number = new_number()
    async with operator(running) as admin:
        business = await admin.create_business("Corner shop")
        armed.arm([point])
        added = await admin.add_number(business.business_id, number)
        assert armed.acted([point])
        assert [given.phone_number for given in added.numbers] == [number]
        assert (await admin.business(business.business_id)).numbers == added.numbers
