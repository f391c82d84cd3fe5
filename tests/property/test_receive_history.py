"""A business that comes and goes: whatever it acknowledges and wherever its streams are cut, every
event reaches it, those of a stream in order, and what came before is marked."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest
from letterlock.v1 import messaging_pb2
from letterlock.v1.messaging_pb2 import ReceiveAcks, ReceiveOpen, ReceiveRequest
from letterlockd.gateway.inbox import INBOX

from tests.harness.clock import settle
from tests.harness.messaging import (
    ACCOUNT,
    NUMBER,
    RETENTION_MS,
    Room,
    messaging_room,
    status_event,
)

EVENTS = 400


class Recorder:
    """Records events in rows of random size; commits may end out of order or not happen."""

    def __init__(self, room: Room, chance: random.Random) -> None:
        self.room, self.chance = room, chance
        self.committed: set[int] = set()

    async def run(self) -> None:
        open_commits = []
        number = 0
        while number < EVENTS or open_commits:
            if number < EVENTS and self.chance.random() < 0.7:
                count = min(self.chance.randint(1, 5), EVENTS - number)
                events = [status_event(number + n) for n in range(count)]
                expires = self.room.clock.now_ms() + RETENTION_MS
                staged = self.room.inbox.stage(ACCOUNT, events, expires_at_ms=expires)
                open_commits.append((range(number, number + count), staged))
                number += count
            elif open_commits:
                await self.end(*open_commits.pop(self.chance.randrange(len(open_commits))))
            await settle(self.chance.randint(1, 40))

    async def end(self, numbers, staged) -> None:
        if self.chance.random() < 0.1:
            staged.aborted()
            return
        await self.room.store.commit([staged.changes])
        self.committed |= set(numbers)
        staged.committed()


class Business:
    """Receives, acknowledges at random, and drops its stream now and then."""

    def __init__(self, room: Room, chance: random.Random) -> None:
        self.room, self.chance = room, chance
        self.seen: set[int] = set()
        self.acknowledged: set[int] = set()

    async def one_stream(self) -> None:
        call = self.room.receive()
        window = self.chance.choice([1, 3, 50])
        opening = ReceiveOpen(business_number=NUMBER, window=window)
        await call.write(ReceiveRequest(open=opening))
        last = -1
        unacknowledged: list[messaging_pb2.Event] = []
        for _ in range(self.chance.randint(2, 60)):
            frame = await call.read()
            for event in frame.events.events:
                number = int(event.status.message_id, 16)
                assert number > last, "out of order within a stream"
                if number in self.seen:
                    assert event.redelivered, "given before and not marked"
                else:
                    assert number > max(self.seen, default=-1), "passed over, and given late"
                last = number
                self.seen.add(number)
                unacknowledged.append(event)
            assert len(unacknowledged) <= window
            self.chance.shuffle(unacknowledged)
            keep = self.chance.randint(0, min(2, window - 1))
            done, unacknowledged = unacknowledged[keep:], unacknowledged[:keep]
            self.acknowledged |= {int(event.status.message_id, 16) for event in done}
            if done:
                ids = [event.event_id for event in done]
                await call.write(ReceiveRequest(acks=ReceiveAcks(event_ids=ids)))
            if frame.HasField("caught_up") and self.chance.random() < 0.3:
                break
        call.cancel()

    async def finish(self) -> None:
        """Take everything that is left and acknowledge it."""
        call = self.room.receive()
        await call.write(ReceiveRequest(open=ReceiveOpen(business_number=NUMBER)))
        while not (frame := await call.read()).HasField("caught_up"):
            ids = [event.event_id for event in frame.events.events]
            self.seen |= {int(event.status.message_id, 16) for event in frame.events.events}
            if ids:
                await call.write(ReceiveRequest(acks=ReceiveAcks(event_ids=ids)))
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass


@pytest.mark.parametrize("seed", range(5))
async def test_every_committed_event_reaches_a_business_that_comes_and_goes(seed: int) -> None:
    chance = random.Random(seed)
    async with messaging_room() as room:
        recorder, business = Recorder(room, chance), Business(room, chance)
        recording = asyncio.create_task(recorder.run())
        for _ in range(12):
            try:
                async with asyncio.timeout(0.3):
                    await business.one_stream()
            except TimeoutError:
                pass  # nothing came any more: the next stream takes its place
        await recording
        await business.finish()
        assert business.seen == recorder.committed
        assert await room.store.count(INBOX) == 0
