"""What the relay's work costs at least: bare gRPC streams, and bare LMDB, beside the relay itself.

    python -m bench.floor [--json] [--mailboxes N] [--messages N] [--rounds N]

The same frames on as many streams and connections as in `bench.relay`, in turns with it, between
two processes that do nothing with them: a frame of 64 messages in and one answer, for each message
a frame out and an acknowledgement in. No parsing, no rooms, no store. The store's share is the rows
of a message put and deleted in plain LMDB, without versions and checks; one fsync a transaction.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import lmdb
import uvloop
from letterlockd import collector

from bench import hop, measure
from bench.ledger import Ledger
from bench.measure import Spread
from bench.relay import DEVICES_A_CHANNEL, local_channel, relay_hop
from bench.row import Row, Sizes

_SOCKET = "floor.sock"
_SERVICE, _METHOD = "bench.Floor", "Connect"
_PLACE = struct.Struct(">I")
_GATEWAY = b"gateway"
_ENVELOPE_BYTES = 80
"""Of a message's frame beside its body: ids, times and tags."""
_MESSAGE_BYTES = hop.BODY_BYTES + _ENVELOPE_BYTES
_ACK = b"\x12\x05\x0a\x03\x80\x80\x08"
_TRANSACTION = 256
_Call: TypeAlias = Any


class _Device:
    """A stream to write to: what waits, and that something does."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.wake = asyncio.Event()


class FloorServer:
    """Hands messages from the gateway's stream to those of the devices, and waits for acks."""

    def __init__(self) -> None:
        self._devices: dict[int, _Device] = {}

    async def connect(self, requests: AsyncIterator[bytes], context: _Call) -> None:
        """One stream: the first frame says whose."""
        first = await anext(aiter(requests))
        await context.write(first)
        if first == _GATEWAY:
            await self._gateway(requests, context)
        else:
            await self._device(_PLACE.unpack(first)[0], requests, context)

    async def _gateway(self, requests: AsyncIterator[bytes], context: _Call) -> None:
        async for frame in requests:
            for start in range(0, len(frame), _MESSAGE_BYTES):
                message = frame[start : start + _MESSAGE_BYTES]
                device = self._devices[_PLACE.unpack_from(message)[0]]
                device.frames.append(message)
                device.wake.set()
            await context.write(_ACK)

    async def _device(self, place: int, requests: AsyncIterator[bytes], context: _Call) -> None:
        device = self._devices[place] = _Device()
        reading = asyncio.create_task(_read(requests))
        while not reading.done():
            await device.wake.wait()
            device.wake.clear()
            frames, device.frames = device.frames, []
            await context.write(b"".join(frames))


async def _read(requests: AsyncIterator[bytes]) -> None:
    async for _ in requests:
        pass


async def serve(folder: Path) -> None:
    """Say `ready`, and serve until SIGTERM."""
    server = grpc.aio.server()
    method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        FloorServer().connect
    )
    handler = grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{folder / _SOCKET}")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    collector.calm()
    print("ready", flush=True)
    await stop.wait()
    await server.stop(0)


class FloorHop:
    """The bare server, and streams to it that take and acknowledge everything."""

    name = "floor"

    def __init__(self, pid: int, gateway: _Call, mailboxes: int) -> None:
        self._pid = pid
        self._gateway = gateway
        self._mailboxes = mailboxes
        self._ledger = Ledger()
        self._changed = asyncio.Event()

    def processes(self) -> Mapping[int, str]:
        return {self._pid: "floor"}

    async def carry(self, count: int) -> float:
        self._ledger.begin(count)
        began = time.monotonic()
        async with asyncio.timeout(hop.PATIENCE_S):
            for start in range(0, count, hop.BATCH):
                await self._until(start - hop.OUTSTANDING + 1)
                await self._gateway.write(b"".join(self._messages(start, count)))
            await self._until(count)
        self._ledger.balance.check(count)
        return time.monotonic() - began

    async def run_gateway(self) -> None:
        while True:
            await self._gateway.read()

    async def run_device(self, call: _Call) -> None:
        while True:
            frame = await call.read()
            for start in range(_ENVELOPE_BYTES, len(frame), _MESSAGE_BYTES):
                self._ledger.note(hop.number_of(frame[start:]))
            await call.write(_ACK)
            self._changed.set()

    async def _until(self, arrived: int) -> None:
        while self._ledger.balance.arrived < arrived:
            self._changed.clear()
            await self._changed.wait()

    def _messages(self, start: int, count: int) -> Iterator[bytes]:
        for number in range(start, min(start + hop.BATCH, count)):
            place = _PLACE.pack(number % self._mailboxes)
            yield place.ljust(_ENVELOPE_BYTES, b"\0") + hop.body(number)


@asynccontextmanager
async def floor_hop(sizes: Sizes) -> AsyncIterator[FloorHop]:
    """A bare server with a stream for each mailbox."""
    with tempfile.TemporaryDirectory(dir=sizes.folder) as name:
        folder = Path(name)
        command = (sys.executable, "-m", "bench.floor", "--serve", name)
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.readline()
        try:
            async with asyncio.TaskGroup() as tasks:
                gateway = await _opened(local_channel(folder / _SOCKET, 0), _GATEWAY)
                side = FloorHop(process.pid, gateway, sizes.mailboxes)
                running = [tasks.create_task(side.run_gateway())]
                for place in range(sizes.mailboxes):
                    if place % DEVICES_A_CHANNEL == 0:
                        channel = local_channel(folder / _SOCKET, 1 + place)
                    call = await _opened(channel, _PLACE.pack(place))
                    running.append(tasks.create_task(side.run_device(call)))
                yield side
                for task in running:
                    task.cancel()
        finally:
            process.terminate()
            await process.wait()


async def _opened(channel: grpc.aio.Channel, first: bytes) -> _Call:
    call: _Call = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")()
    await call.write(first)
    await call.read()
    return call


def bare_rows(sizes: Sizes) -> Row:
    """A message's rows in plain LMDB, put in one transaction and deleted in the one after it."""
    with tempfile.TemporaryDirectory(dir=sizes.folder) as name:
        env = lmdb.open(name, max_dbs=3, map_size=1 << 30)
        mailboxes, submitted, expiry = (env.open_db(table) for table in (b"m", b"s", b"e"))
        gone: list[tuple[bytes, Any]] = []
        began = time.process_time()
        for start in range(0, sizes.messages, _TRANSACTION):
            with env.begin(write=True) as txn:
                for key, table in gone:
                    txn.delete(key, db=table)
                gone.clear()
                for number in range(start, start + _TRANSACTION):
                    item = struct.pack(">QQ", number % sizes.mailboxes, number)
                    row, once = hop.body(number) + bytes(_ENVELOPE_BYTES), os.urandom(32)
                    due = struct.pack(">BQ", 1, number)
                    txn.put(item, row, db=mailboxes)
                    txn.put(due + item, b"", db=expiry)
                    txn.put(once, b"", db=submitted)
                    txn.put(due + once, b"", db=expiry)
                    gone += [(item, mailboxes), (due + item, expiry)]
        used = (time.process_time() - began) / sizes.messages * 1e3
        env.close()
    return {"side": "lmdb", "cpu_s_per_1000": {"lmdb": round(used, 4)}}


async def measured(sizes: Sizes) -> list[Row]:
    """Rounds of the relay and of the bare server, in turns, and the bare rows once a round."""
    async with relay_hop(sizes) as relay, floor_hop(sizes) as floor:
        rows = [row async for row in hop.in_turns([relay, floor], sizes)]
    return [*rows, *(bare_rows(sizes) for _ in range(sizes.rounds))]


def in_short(rows: Sequence[Row]) -> list[Row]:
    """CPU microseconds a message of each side's processes, medians with their spread."""
    used: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for role, seconds in row["cpu_s_per_1000"].items():
            used.setdefault((row["side"], role), []).append(seconds * 1e3)
    return [
        {
            "side": side,
            "process": role,
            "CPU µs": round(spread.median),
            "10 %": round(spread.p10),
            "90 %": round(spread.p90),
        }
        for (side, role), samples in used.items()
        for spread in [Spread.of(samples)]
    ]


def main() -> None:
    """The command; with --serve, the bare server's process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--mailboxes", type=int, default=Sizes.mailboxes)
    parser.add_argument("--messages", type=int, default=Sizes.messages)
    parser.add_argument("--rounds", type=int, default=Sizes.rounds)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.serve is not None:
        uvloop.run(serve(given.serve))
        return
    sizes = Sizes(rounds=given.rounds, messages=given.messages, mailboxes=given.mailboxes)
    rows = uvloop.run(measured(sizes))
    title = "CPU a message of the relay, and of bare gRPC and LMDB"
    measure.show("floor", title, rows if given.json else in_short(rows), as_json=given.json)


if __name__ == "__main__":
    main()
