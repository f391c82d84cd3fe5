"""The business of the end-to-end benchmark: sends numbered texts, keeps a ledger of its events."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from letterlock import BusinessClient, OutgoingMessage, SendResult
from letterlock.business.events import Event
from letterlock.v1 import messaging_pb2

DELIVERED = messaging_pb2.MESSAGE_STATUS_DELIVERED


class LedgerError(Exception):
    """A message was lost, repeated or refused: the figures mean nothing."""


@dataclass
class Events:
    """What the Receive stream gave since `begin`."""

    statuses: Counter[int] = field(default_factory=Counter)
    texts: set[int] = field(default_factory=set)
    repeated: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    last_s: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        self.statuses.clear()
        self.texts.clear()
        self.latencies_ms.clear()
        self.repeated = 0

    def take(self, event: Event) -> None:
        if event.status is not None:
            self.statuses[event.status.status] += 1
        elif event.message is not None:
            self._take_text(event.text or "")
        event.ack()
        self.changed.set()

    def _take_text(self, text: str) -> None:
        self.last_s = time.monotonic()
        number, _, rest = text.partition(" ")
        if not number.isdecimal():
            return
        self.repeated += int(number) in self.texts
        self.texts.add(int(number))
        self.latencies_ms.append((self.last_s - float(rest.partition(" ")[0])) * 1e3)


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

    async def until_delivered(self, count: int, patience_s: float) -> None:
        """Wait until `count` messages are reported as delivered."""
        seen = self.events.statuses
        await self._until("deliveries told", lambda: seen[DELIVERED], count, patience_s)

    async def until_texts(self, count: int, patience_s: float) -> None:
        """Wait until `count` numbered texts of users have come."""
        await self._until("texts of users", lambda: len(self.events.texts), count, patience_s)

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
