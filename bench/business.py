"""A business of the daemon's workloads: sends numbered texts, keeps a ledger of its events."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from letterlock import BusinessClient, OutgoingMessage, SendResult
from letterlock.business.events import Event
from letterlock.v1 import messaging_pb2

from bench.ledger import Ledger, LedgerError

DELIVERED = messaging_pb2.MESSAGE_STATUS_DELIVERED


@dataclass
class Events:
    """What the Receive stream gave since `begin`: statuses by kind, users' texts by number."""

    statuses: Counter[int] = field(default_factory=Counter)
    texts: Ledger = field(default_factory=Ledger)
    on_text: Callable[[int], None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, texts: int = 0, on_text: Callable[[int], None] | None = None) -> None:
        self.statuses.clear()
        self.texts.begin(texts)
        self.on_text = on_text

    def take(self, event: Event) -> None:
        if event.status is not None:
            self.statuses[event.status.status] += 1
        elif event.message is not None:
            self._take_text((event.text or "").partition(" ")[0])
        event.ack()
        self.changed.set()

    def _take_text(self, number: str) -> None:
        if not number.isdecimal():
            return
        self.texts.note(int(number))
        if self.on_text is not None:
            self.on_text(int(number))


class Business:
    """One business number, its Send stream and its Receive stream."""

    def __init__(self, client: BusinessClient, users: Sequence[str], body: str) -> None:
        self._client = client
        self._users = users
        self._body = body
        self.events = Events()

    async def read(self) -> None:
        """Take and acknowledge events until cancelled."""
        async with self._client.receive(window=10_000) as stream:
            async for event in stream:
                self.events.take(event)

    async def send(self, count: int, window: int) -> float:
        """Send `count` texts round the users, `window` unanswered at most; when it began."""
        began = time.monotonic()
        messages = (self._message(number, time.monotonic()) for number in range(count))
        async for result in self._client.send_many(messages, window=window):
            _check(result)
        return began

    async def send_at(self, rate: int, count: int) -> None:
        """Send `count` texts at their times, `rate` a second, late or not (open loop)."""
        async for result in self._client.send_many(self._due(rate, count), window=10_000):
            _check(result)

    async def converse(self, turns: int, patience_s: float) -> float:
        """Ping-pong with all users at once, `turns` texts each way; when it began."""
        count = turns * len(self._users)
        due: asyncio.Queue[int] = asyncio.Queue()

        def answered(number: int) -> None:
            if number + len(self._users) < count:
                due.put_nowait(number + len(self._users))

        async def next_texts() -> AsyncIterator[OutgoingMessage]:
            for _ in range(count):
                yield self._message(await due.get(), time.monotonic())

        self.events.begin(count, answered)
        began = time.monotonic()
        for number in range(len(self._users)):
            due.put_nowait(number)
        try:
            async with asyncio.timeout(patience_s):
                async for result in self._client.send_many(next_texts(), window=10_000):
                    _check(result)
        except TimeoutError:
            self.events.texts.balance.check(count)
        await self.until_texts(count, patience_s)
        return began

    async def until_delivered(self, count: int, patience_s: float) -> None:
        """Wait until `count` messages are reported as delivered, each once."""
        seen = self.events.statuses
        await self._until("deliveries told", lambda: seen[DELIVERED], count, patience_s)
        if seen[DELIVERED] != count:
            raise LedgerError(f"{seen[DELIVERED]} reports of delivery for {count} messages")

    async def until_texts(self, count: int, patience_s: float) -> None:
        """Wait until `count` numbered texts of users have come, each once."""
        texts = self.events.texts
        await self._until("texts of users", lambda: texts.balance.arrived, count, patience_s)
        texts.balance.check(count)

    async def _until(
        self, what: str, seen: Callable[[], int], count: int, patience_s: float
    ) -> None:
        try:
            async with asyncio.timeout(patience_s):
                while seen() < count:
                    self.events.changed.clear()
                    await self.events.changed.wait()
        except TimeoutError:
            raise LedgerError(f"{seen()} of {count} {what} in {patience_s:.0f} s") from None

    async def _due(self, rate: int, count: int) -> AsyncIterator[OutgoingMessage]:
        began = time.monotonic()
        for number in range(count):
            due = began + number / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            yield self._message(number, due)

    def _message(self, number: int, due_s: float) -> OutgoingMessage:
        head = f"{number} {due_s:.6f} "
        return OutgoingMessage(
            self._users[number % len(self._users)], head + self._body[len(head) :]
        )


def _check(result: SendResult) -> None:
    if result.error is not None:
        raise LedgerError(f"refused: {result.error.reason}")
