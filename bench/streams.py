"""Messages per second through the Messaging servicer alone, over loopback.

    python -m bench.streams [--seconds 3]

A client process sends to (receives from) a server whose rooms below are fakes: sending is accepted
at once, the inbox lies in memory. So this is the cost of framing, validation, flow control,
opening events and acknowledging them; not of the ratchet and not of the disk. Server CPU per
message is what counts, since everything else of the gateway's front shares that core.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import time
from bisect import bisect_right
from itertools import islice

import grpc
import uvloop
from letterlock.v1 import messaging_pb2_grpc
from letterlock.v1.messaging_pb2 import (
    ReceiveAcks,
    ReceiveOpen,
    ReceiveRequest,
    SendBatch,
    SendOpen,
    SendRequest,
)
from letterlockd.gateway.inbox_rows import INBOX_TABLES
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Record, Table

from tests.harness.messaging import NUMBER, TOKEN, inbound_event, messaging_room, text_message

BODY = "x" * 256
UNANSWERED = 2_000
EVENTS = 30_000


def client(port: int, kind: str, per_frame: int, seconds: float, counted: object) -> None:
    """The caller's side, in a process of its own."""
    work = {"send": send, "receive": receive}[kind]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        counted.put(runner.run(work(port, per_frame, seconds)))  # type: ignore[attr-defined]


async def send(port: int, per_frame: int, seconds: float) -> int:
    frames = [
        SendRequest(
            batch=SendBatch(messages=[text_message(f"{n}-{i:020}", BODY) for i in range(per_frame)])
        )
        for n in range(32)
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = messaging_pb2_grpc.MessagingStub(channel).Send(metadata=TOKEN)
        await call.write(SendRequest(open=SendOpen(business_number=NUMBER)))
        await call.read()
        room = asyncio.Semaphore(UNANSWERED // per_frame)
        sent = 0
        end = time.monotonic() + seconds

        async def write() -> None:
            nonlocal sent
            while time.monotonic() < end:
                await room.acquire()
                await call.write(frames[sent // per_frame % len(frames)])
                sent += per_frame
            await call.done_writing()

        writing = asyncio.create_task(write())
        answered = 0
        while (frame := await call.read()) is not grpc.aio.EOF:
            before = answered // per_frame
            answered += len(frame.results.results)
            for _ in range(answered // per_frame - before):
                room.release()
        await writing
        return answered


async def receive(port: int, per_frame: int, seconds: float) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = messaging_pb2_grpc.MessagingStub(channel).Receive(metadata=TOKEN)
        window = 4 * per_frame
        await call.write(ReceiveRequest(open=ReceiveOpen(business_number=NUMBER, window=window)))
        got = 0
        while got < EVENTS:
            frame = await call.read()
            ids = [event.event_id for event in frame.events.events]
            got += len(ids)
            if ids:
                await call.write(ReceiveRequest(acks=ReceiveAcks(event_ids=ids)))
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
        return got


async def measure(kind: str, per_frame: int, seconds: float, *, per_row: int = 1) -> None:
    spawn = multiprocessing.get_context("spawn")
    counted = spawn.Queue()
    async with messaging_room(OrderedStore(INBOX_TABLES)) as room:
        room.outbound.seen = Forgetful()
        if kind == "receive":
            for start in range(0, EVENTS, per_row):
                await room.arrive(*[inbound_event(start + n, BODY) for n in range(per_row)])
        arguments = (room.port, kind, per_frame, seconds, counted)
        process = spawn.Process(target=client, args=arguments)
        process.start()
        while not room.messaging.open_streams:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        wall, cpu = time.perf_counter(), cpu_seconds()
        while process.is_alive():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        count = counted.get()
    label = f"{kind:8} {per_frame:4} a frame" + (f", {per_row} a row" if kind == "receive" else "")
    print(f"{label:32} {count / wall:9,.0f} messages/s {cpu / count * 1e6:7.1f} µs server CPU each")


class OrderedStore(MemoryStore):
    """Rows that arrive in order need no sorting: a scan costs what it finds, as in an engine."""

    async def scan(
        self, table: Table, *, prefix: bytes = b"", after: bytes = b"", limit: int
    ) -> list[tuple[bytes, Record]]:
        records = self._records[table.number]
        if not hasattr(self, "_keys"):
            self._keys = list(records)
        start = bisect_right(self._keys, after)
        found = islice(self._keys, start, start + limit)
        return [(key, records[key]) for key in found if key in records]


class Forgetful(list):  # type: ignore[type-arg]
    """What the fake remembers for tests would only grow here."""

    def __iadd__(self, _: object) -> Forgetful:  # type: ignore[misc,override]
        return self


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system


async def main(seconds: float) -> None:
    for per_frame in (1, 64, 256):
        await measure("send", per_frame, seconds)
    for per_frame, per_row in ((64, 1), (256, 1), (256, 64)):
        await measure("receive", per_frame, seconds, per_row=per_row)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(parser.parse_args().seconds))
