"""Our relay as a hop: one gateway that submits, a connected device for each mailbox.

The last message of each mailbox in a round asks for a receipt. A mailbox's acknowledgements are
carried out in order, so that receipt says that all of its deletions are durable; it is more than a
peer is asked for. The load generator is this process, and shares the machine.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from letterlock.relay.v1 import mailbox_pb2

from bench import hop, relay_frames
from bench.ledger import Ledger, LedgerError
from bench.relay_frames import Address
from bench.relay_process import CODES, SOCKET
from bench.row import Row, Sizes
from tests.harness.relay import GATEWAY, Identity, Outbox, Peer, RelayClient, bearer

DEVICES_A_CHANNEL = 100
AT_ONCE = 32
_TTL_MS = 3_600_000
_CONNECT = "/letterlock.relay.v1.Mailbox/Connect"
_Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, mailbox_pb2.ConnectResponse]"
Register = Callable[[], Awaitable[Peer]]


class RelayHop:
    """The relay process, its gateway and its devices."""

    name = "relay"

    def __init__(
        self, pids: Mapping[int, str], sender: bytes, gateway: _Call, register: Register
    ) -> None:
        self._pids = pids
        self._sender = sender
        self._gateway = gateway
        self._new_user = register
        self._away: list[Address] = []
        self._left = 0
        self._unanswered = 0
        self._ledger = Ledger()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._receipts = 0
        self._unheard = 0
        self.addresses: list[Address] = []

    def processes(self) -> Mapping[int, str]:
        return self._pids

    async def carry(self, count: int) -> float:
        self._ledger.begin(count)
        self._receipts = 0
        wanted = min(count, len(self.addresses))
        began = time.monotonic()
        async with asyncio.timeout(hop.PATIENCE_S):
            for start in range(0, count, hop.BATCH):
                await self._until(partial(self._has_room, start))
                frame = self._batch(start, count)
                self._unanswered += min(hop.BATCH, count - start)
                await self._write(frame)
            await self._until(lambda: self._receipts >= wanted)
        self._ledger.balance.check(count)
        return time.monotonic() - began

    async def leave(self, count: int, each: int) -> int:
        """Make that many messages wait, `each` in a mailbox of a user who is away; how many do."""
        away = self._away
        made = 0
        while made < count:
            if not away or self._left % each == 0:
                away.append(Address(await self._new_user()))
            many = min(hop.BATCH, count - made, each - self._left % each)
            self._unanswered += many
            await self._write(relay_frames.submissions([(away[-1], 0, self._terms())] * many))
            self._left += many
            made += many
            await self._until(lambda: self._unanswered < hop.OUTSTANDING)
        await self._until(lambda: self._unanswered == 0)
        return made

    async def run_gateway(self) -> None:
        """Take answers and receipts, until cancelled."""
        while True:
            frame = await _read(self._gateway)
            for result in frame.results.results:
                if result.HasField("refused"):
                    raise LedgerError(f"refused: {result.refused.reason}")
            self._unanswered -= len(frame.results.results)
            if items := frame.deliveries.items:
                self._receipts += sum(len(item.receipts.receipts) for item in items)
                await self._write(relay_frames.acks([item.item_id for item in items]))
            self._changed.set()

    async def run_device(self, call: _Call) -> None:
        """Take everything and acknowledge each frame, until cancelled."""
        while True:
            ids = []
            for item in (await _read(call)).deliveries.items:
                self._ledger.note(hop.number_of(item.envelope.body))
                ids.append(item.item_id)
            if ids:
                await call.write(relay_frames.acks(ids))
                self._heard(len(ids))

    def _heard(self, count: int) -> None:
        """Who submits hears of deliveries by the batch, as with the peers."""
        self._unheard += count
        if self._unheard >= hop.BATCH:
            self._unheard = 0
            self._changed.set()

    async def _write(self, frame: bytes) -> None:
        async with self._writing:  # gRPC takes one write of a call at a time
            await self._gateway.write(frame)

    def _has_room(self, sent: int) -> bool:
        return sent - self._ledger.balance.arrived < hop.OUTSTANDING

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._changed.clear()
            await self._changed.wait()

    def _batch(self, start: int, count: int) -> bytes:
        """The messages from `start`; the last one of each mailbox asks for a receipt."""
        users = len(self.addresses)
        end = min(start + hop.BATCH, count)
        plain, last = self._terms(), self._terms(receipt=True)
        return relay_frames.submissions(
            (self.addresses[number % users], number, last if number >= count - users else plain)
            for number in range(start, end)
        )

    def _terms(self, *, receipt: bool = False) -> bytes:
        expire_ms = time.time_ns() // 1_000_000 + _TTL_MS
        return relay_frames.terms(self._sender, expire_ms, receipt=receipt)


class _FolderCodes(dict[str, str]):
    """Verification codes as the relay process wrote them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, verification_id: str) -> str:
        return (self._folder / verification_id).read_text()


@asynccontextmanager
async def relay_hop(sizes: Sizes) -> AsyncIterator[RelayHop]:
    """A relay in a fresh folder with all its devices registered and connected."""
    with tempfile.TemporaryDirectory(dir=sizes.folder) as name:
        folder = Path(name)
        async with _process(folder) as pids, asyncio.TaskGroup() as tasks:
            channel = local_channel(folder / SOCKET, 0)
            client = _client(folder, channel)
            sender = (await client.business()).account_id
            gateway = await _connected(channel, GATEWAY, window=10_000)
            side = RelayHop(pids, sender, gateway, client.register)
            running = [tasks.create_task(side.run_gateway())]
            gate = asyncio.Semaphore(AT_ONCE)
            identity = Identity()  # one for all, and its keys: nobody encrypts here
            upload = identity.upload()
            channels = [
                local_channel(folder / SOCKET, 1 + place)
                for place in range(-(-sizes.mailboxes // DEVICES_A_CHANNEL))
            ]

            async def connect(place: int) -> None:
                async with gate:
                    channel = channels[place // DEVICES_A_CHANNEL]
                    number = f"+4930{place:07d}"
                    client = _client(folder, channel)
                    peer = await client.register(number, identity=identity, upload=upload)
                    call = await _connected(channel, peer.credential, window=1024)
                    side.addresses.append(Address(peer))
                    running.append(tasks.create_task(side.run_device(call)))

            await asyncio.gather(*(connect(place) for place in range(sizes.mailboxes)))
            yield side
            for task in running:
                task.cancel()


async def relay(sizes: Sizes) -> AsyncIterator[Row]:
    """The blind hop alone: submit, commit, deliver, acknowledge, delete."""
    async with relay_hop(sizes) as side:
        async for row in hop.in_turns([side], sizes):
            yield row


def local_channel(socket: Path, number: int) -> grpc.aio.Channel:
    """A channel with a connection of its own: each `number` is another one."""
    options = [("grpc.use_local_subchannel_pool", 1), ("bench.number", number)]
    return grpc.aio.insecure_channel(f"unix:{socket}", options=options)


def _client(folder: Path, channel: grpc.aio.Channel) -> RelayClient:
    client = RelayClient(channel, Outbox())
    client.outbox.codes = _FolderCodes(folder / CODES)
    return client


async def _connected(channel: grpc.aio.Channel, credential: str, window: int) -> _Call:
    """A mailbox stream that is written as bytes, opened."""
    connect: Any = channel.stream_stream(
        _CONNECT, response_deserializer=mailbox_pb2.ConnectResponse.FromString
    )
    call: _Call = connect(metadata=bearer(credential))
    first = mailbox_pb2.ConnectRequest(open=mailbox_pb2.Open(window=window))
    await call.write(first.SerializeToString())
    await _read(call)
    return call


async def _read(call: _Call) -> mailbox_pb2.ConnectResponse:
    frame = await call.read()
    if not isinstance(frame, mailbox_pb2.ConnectResponse):
        raise LedgerError("the relay ended a stream")
    return frame


@asynccontextmanager
async def _process(folder: Path) -> AsyncIterator[Mapping[int, str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.relay_process", str(folder)), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    ready = (await process.stdout.readline()).split()
    try:
        yield {process.pid: "relay front", int(ready[1]): "relay committers"}
    finally:
        process.terminate()
        await process.wait()
