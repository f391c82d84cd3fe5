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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import grpc
from letterlock.relay.v1 import mailbox_pb2

from bench import hop
from bench.ledger import Ledger, LedgerError
from bench.relay_process import CODES, SOCKET
from bench.row import Row, Sizes
from tests.harness.relay import GATEWAY, Identity, Outbox, Peer, RelayClient, Stream, submission

DEVICES_A_CHANNEL = 100
AT_ONCE = 32
_TTL_MS = 3_600_000
Register = Callable[[], Awaitable[Peer]]


class RelayHop:
    """The relay process, its gateway and its devices."""

    name = "relay"

    def __init__(
        self, pids: Mapping[int, str], sender: bytes, gateway: Stream, register: Register
    ) -> None:
        self._pids = pids
        self._sender = sender
        self._gateway = gateway
        self._new_user = register
        self._away: list[Peer] = []
        self._left = 0
        self._unanswered = 0
        self._ledger = Ledger()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._receipts = 0
        self.peers: list[Peer] = []

    def processes(self) -> Mapping[int, str]:
        return self._pids

    async def carry(self, count: int) -> float:
        self._ledger.begin(count)
        self._receipts = 0
        wanted = min(count, len(self.peers))
        began = time.monotonic()
        async with asyncio.timeout(hop.PATIENCE_S):
            for start in range(0, count, hop.BATCH):
                await self._until(partial(self._has_room, start))
                frame = self._batch(start, count)
                self._unanswered += len(frame.submissions.submissions)
                await self._submit(frame)
            await self._until(lambda: self._receipts >= wanted)
        self._ledger.balance.check(count)
        return time.monotonic() - began

    async def leave(self, count: int, each: int) -> int:
        """Make that many messages wait, `each` in a mailbox of a user who is away; how many do."""
        away = self._away
        made = 0
        while made < count:
            if not away or self._left % each == 0:
                away.append(await self._new_user())
            many = min(hop.BATCH, count - made, each - self._left % each)
            self._unanswered += many
            await self._submit(self._frame((away[-1], 0, False) for _ in range(many)))
            self._left += many
            made += many
            await self._until(lambda: self._unanswered < hop.OUTSTANDING)
        await self._until(lambda: self._unanswered == 0)
        return made

    async def run_gateway(self) -> None:
        """Take answers and receipts, until cancelled."""
        while True:
            frame = await self._gateway.frame()
            for result in frame.results.results:
                if result.HasField("refused"):
                    raise LedgerError(f"refused: {result.refused.reason}")
            self._unanswered -= len(frame.results.results)
            if items := frame.deliveries.items:
                self._receipts += sum(len(item.receipts.receipts) for item in items)
                async with self._writing:
                    await self._gateway.ack(items)
            self._changed.set()

    async def run_device(self, stream: Stream) -> None:
        """Take everything and acknowledge each frame, until cancelled."""
        while True:
            items = (await stream.frame()).deliveries.items
            for item in items:
                self._ledger.note(hop.number_of(item.envelope.body))
            if items:
                await stream.ack(items)
                self._changed.set()

    async def _submit(self, frame: mailbox_pb2.ConnectRequest) -> None:
        async with self._writing:  # gRPC takes one write of a call at a time
            await self._gateway.call.write(frame)

    def _has_room(self, sent: int) -> bool:
        return sent - self._ledger.balance.arrived < hop.OUTSTANDING

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._changed.clear()
            await self._changed.wait()

    def _batch(self, start: int, count: int) -> mailbox_pb2.ConnectRequest:
        """The messages from `start`; the last one of each mailbox asks for a receipt."""
        users = len(self.peers)
        end = min(start + hop.BATCH, count)
        return self._frame(
            (self.peers[number % users], number, number >= count - users)
            for number in range(start, end)
        )

    def _frame(self, messages: Iterable[tuple[Peer, int, bool]]) -> mailbox_pb2.ConnectRequest:
        now_ms = time.time_ns() // 1_000_000
        submissions = [
            submission(
                to,
                now_ms=now_ms,
                sender=self._sender,
                body=hop.body(number),
                ttl_ms=_TTL_MS,
                receipt=receipt,
            )
            for to, number, receipt in messages
        ]
        return mailbox_pb2.ConnectRequest(
            submissions=mailbox_pb2.Submissions(submissions=submissions)
        )


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
            client = _client(folder, 0)
            sender = (await client.business()).account_id
            gateway = await client.connect(GATEWAY, window=10_000)
            side = RelayHop(pids, sender, gateway, client.register)
            running = [tasks.create_task(side.run_gateway())]
            gate = asyncio.Semaphore(AT_ONCE)
            identity = Identity()  # one for all, and its keys: nobody encrypts here
            upload = identity.upload()
            clients = [
                _client(folder, 1 + place)
                for place in range(-(-sizes.mailboxes // DEVICES_A_CHANNEL))
            ]

            async def connect(place: int) -> None:
                async with gate:
                    own = clients[place // DEVICES_A_CHANNEL]
                    number = f"+4930{place:07d}"
                    peer = await own.register(number, identity=identity, upload=upload)
                    stream = await own.connect(peer, window=1024)
                    side.peers.append(peer)
                    running.append(tasks.create_task(side.run_device(stream)))

            await asyncio.gather(*(connect(place) for place in range(sizes.mailboxes)))
            yield side
            for task in running:
                task.cancel()


async def relay(sizes: Sizes) -> AsyncIterator[Row]:
    """The blind hop alone: submit, commit, deliver, acknowledge, delete."""
    async with relay_hop(sizes) as side:
        async for row in hop.in_turns([side], sizes):
            yield row


def _client(folder: Path, number: int) -> RelayClient:
    options = [("grpc.use_local_subchannel_pool", 1), ("bench.number", number)]
    channel = grpc.aio.insecure_channel(f"unix:{folder / SOCKET}", options=options)
    client = RelayClient(channel, Outbox())
    client.outbox.codes = _FolderCodes(folder / CODES)
    return client


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
