"""The traffic of the fault tests: one business, and users who know it or are new to it.

The people live on over many rounds, so that their ratchets and stores grow old; each round has a
ledger of its own. Everything is written down before it is believed. Knows no faults.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count

from letterlock import BusinessClient, Device, OutgoingMessage
from letterlock.device.events import IncomingMessage, Undecryptable
from letterlock.errors import Busy, Unavailable
from letterlock.relay.v1 import mailbox_pb2

from tests.faults.judge import is_settled
from tests.faults.ledger import Ledger
from tests.harness.people import PATIENT, Daemon, open_shop, user

SETTLE_SECONDS = 90

NACK_EVERY = 7
"""One event in so many is given back when it first comes, and must come again in its place."""

_WORTH_REPEATING = (Busy, Unavailable)


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is said in a round, and how."""

    sends: int
    """Messages of the business, spread over its users at random."""
    writes: int
    """Messages of each user who knows the business."""
    newcomers: int
    """Users to whom the business writes for the first time, in the middle of the round."""
    window: int
    """Unanswered messages on the Send stream at most."""
    receipts: int
    """One message in so many is reported as read."""


class Traffic:
    """The people, and what they say in a round. Make it with `traffic`."""

    def __init__(
        self,
        running: Daemon,
        stack: AsyncExitStack,
        marker: str,
        new_number: Callable[[], str],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.ledger = Ledger()
        self.answers = 0
        """Answers on the Send stream in this round: the clock of the faults."""
        self._running = running
        self._stack = stack
        self._marker = marker
        self._new_number = new_number
        self._tasks = tasks
        self._users: dict[str, Device] = {}
        self._known: list[str] = []
        self._news = asyncio.Event()
        self._names = count()

    async def begin(self, users: int) -> None:
        """Open the shop, let users move in and say hello."""
        shop = await open_shop(self._running, self._new_number())
        self.shop_number = shop.number
        self._business: BusinessClient = await self._stack.enter_async_context(shop.client())
        self._patient: BusinessClient = await self._stack.enter_async_context(
            shop.client(retry=PATIENT)
        )
        self._tasks.create_task(self._collect())
        for _ in range(users):
            number, _ = await self._moves_in(self._stack)
            self._known.append(number)
            await self._write(number, self._text("hello"))
        await self.settle()

    @property
    def numbers(self) -> list[str]:
        return [self.shop_number, *self._users]

    async def reached(self, answers: int) -> None:
        """Wait until so many messages of this round were answered."""
        while self.answers < answers:
            self._news.clear()
            await self._news.wait()

    @asynccontextmanager
    async def round(self, seed: random.Random, amount: Amount) -> AsyncIterator[asyncio.Task[None]]:
        """The traffic of a round as a task, with a new ledger. The block injects its faults."""
        self.ledger, self.answers = self.ledger.next_round(), 0
        async with AsyncExitStack() as guests:
            newcomers = [await self._moves_in(guests) for _ in range(amount.newcomers)]
            numbers = [number for number, _ in newcomers]
            saying = self._tasks.create_task(self._say(seed, amount, numbers))
            try:
                yield saying
            finally:
                saying.cancel()
                await asyncio.gather(saying, return_exceptions=True)
                for number, reading in newcomers:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                    del self._users[number]

    async def settle(self) -> None:
        """Return when everything that was promised has come, or when that takes too long: then it
        is for the judge to say what is missing."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while not is_settled(self.ledger):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass

    async def _say(self, seed: random.Random, amount: Amount, newcomers: list[str]) -> None:
        messages = [self._message(seed.choice(self._known)) for _ in range(amount.sends)]
        for number in newcomers:
            messages.insert(seed.randrange(len(messages)), self._message(number))
        again = seed.sample(messages, min(3, len(messages)))
        async with asyncio.TaskGroup() as both:
            both.create_task(self._send(messages, again, amount))
            for number in self._known:
                both.create_task(self._chat(number, amount.writes))

    def _message(self, to: str) -> OutgoingMessage:
        name = next(self._names)
        return OutgoingMessage(to, self._text(f"m{name}"), idempotency_key=f"k{name}")

    def _text(self, name: str) -> str:
        return f"{self._marker} {name}"

    async def _send(
        self, messages: list[OutgoingMessage], again: list[OutgoingMessage], amount: Amount
    ) -> None:
        by_key = {message.idempotency_key: message for message in messages}
        for n, message in enumerate(messages):
            self._submitting(message)
            sent = self.ledger.sent[message.idempotency_key]
            sent.receipt_wanted = n % amount.receipts == 0
        refused = []
        async with self._business.send_many(messages, window=amount.window) as results:
            async for result in results:
                if result.accepted is not None:
                    self.ledger.accepted(result.idempotency_key, result.accepted.message_id)
                elif isinstance(result.error, _WORTH_REPEATING):
                    self.ledger.refused(result.idempotency_key, result.error.reason)
                    refused.append(by_key[result.idempotency_key])
                else:
                    raise AssertionError(f"refused for good: {result.error!r}")
                self.answers += 1
                self._news.set()
        for message in (*refused, *again):
            await self._send_one(message)

    async def _send_one(self, message: OutgoingMessage) -> None:
        """Until it is accepted; also as a backend does that never heard the first answer."""
        while True:
            self._submitting(message)
            try:
                accepted = await self._patient.send(
                    to=message.to, text=message.text, idempotency_key=message.idempotency_key
                )
            except _WORTH_REPEATING as error:
                if self.ledger.sent[message.idempotency_key].answered is None:
                    self.ledger.refused(message.idempotency_key, error.reason)
            else:
                self.ledger.accepted(message.idempotency_key, accepted.message_id)
                self._news.set()
                return

    def _submitting(self, message: OutgoingMessage) -> None:
        self.ledger.submitting(message.idempotency_key, message.to, message.text or "")

    async def _chat(self, number: str, writes: int) -> None:
        for _ in range(writes):
            await self._write(number, self._text(f"a{next(self._names)}"))

    async def _write(self, number: str, text: str) -> None:
        """Until the relay has taken it. A refusal says that it has not."""
        while True:
            try:
                await self._users[number].send_text(self.shop_number, text)
            except _WORTH_REPEATING as error:
                self.ledger.counts[f"a user was refused: {error.reason}"] += 1
                await asyncio.sleep(error.retry_after or 0.1)
            else:
                self.ledger.wrote(number, text)
                self._news.set()
                return

    async def _moves_in(self, stack: AsyncExitStack) -> tuple[str, asyncio.Task[None]]:
        number = self._new_number()
        device = await stack.enter_async_context(user(self._running, number, one_time_pre_keys=3))
        self._users[number] = device
        self._watch(number, device)
        return number, self._tasks.create_task(self._use(number, device))

    def _watch(self, number: str, device: Device) -> None:
        """Note everything encrypted that comes to a device or leaves it."""
        assert device._state is not None
        assert device._connection is not None
        inbox, mailbox = device._state.inbox, device._connection._mailbox
        take_in, submit = inbox.take_in, mailbox.submit

        def noted_item(item: mailbox_pb2.Item, now_ms: int) -> object:
            if item.HasField("envelope"):
                self.ledger.envelope(number, item.envelope)
            return take_in(item, now_ms)

        def noted_submission(submission: mailbox_pb2.Submission) -> None:
            self.ledger.submission(number, submission)
            submit(submission)

        inbox.take_in, mailbox.submit = noted_item, noted_submission

    async def _use(self, number: str, device: Device) -> None:
        """A user's application: reads, and says so of some messages."""
        async for event in device.events():
            if isinstance(event, IncomingMessage):
                self.ledger.read(number, event.message_id.hex(), event.text or "")
                event.ack()
                if any(
                    sent.receipt_wanted and sent.text == event.text
                    for sent in self.ledger.sent.values()
                ):
                    await self._say_read(device, event)
            elif isinstance(event, Undecryptable):
                self.ledger.counts[f"undecryptable at a user: {event.reason}"] += 1
            self._news.set()

    async def _say_read(self, device: Device, message: IncomingMessage) -> None:
        while True:
            try:
                await device.send_read_receipt(message.sender, [message.message_id])
            except _WORTH_REPEATING:
                await asyncio.sleep(0.1)
            else:
                return

    async def _collect(self) -> None:
        """The backend's Receive stream."""
        async with self._business.receive(window=20) as events:
            fresh = 0
            async for event in events:
                fresh += not event.redelivered
                if not event.redelivered and fresh % NACK_EVERY == 0:
                    self.ledger.counts["events given back"] += 1
                    event.nack()
                    continue
                if self.ledger.given(event.event_id):
                    if event.status is not None:
                        self.ledger.told(event.status.message_id, event.status.status)
                    elif event.message is not None:
                        number = event.message.phone_number
                        self.ledger.heard(event.event_id, number, event.text or "")
                    else:
                        self.ledger.counts[f"event: {event.kind}"] += 1
                event.ack()
                self._news.set()


@asynccontextmanager
async def traffic(
    running: Daemon, *, users: int, marker: str, new_number: Callable[[], str]
) -> AsyncIterator[Traffic]:
    """People around a running daemon. What ends one of them ends the block, too."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        people = Traffic(running, stack, marker, new_number, tasks)
        await people.begin(users)
        try:
            yield people
        finally:
            for task in tuple(tasks._tasks):
                task.cancel()
