"""Redis as a durable mailbox store: a list for each mailbox, one of who has mail, AOF fsync always.

64 messages a pipeline: pushed to their mailboxes and announced in one transaction; the consumer
takes announcements, reads the mailboxes, and trims what it has read. The bare protocol, without a
client library, which would be the slower part.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from bench import hop
from bench.ledger import Ledger, LedgerError
from bench.peers.server import family, found, free_port, fresh_folder, server
from bench.row import Sizes

NAME = "redis"
_WAKE = b"wake"
_BLOCK_S = b"1"


class Connection:
    """One connection that writes many commands at once and reads as many answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def __call__(self, *commands: tuple[bytes, ...]) -> list[Any]:
        """Their answers, in order. Raises `LedgerError` when one is refused."""
        self._writer.write(b"".join(map(_command, commands)))
        return [await self._answer() for _ in commands]

    async def _answer(self) -> Any:
        line = (await self._reader.readuntil(b"\r\n"))[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise LedgerError(f"redis refused: {rest.decode()}")
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        length = int(rest)
        if length < 0:
            return None
        if kind == b"$":
            return (await self._reader.readexactly(length + 2))[:-2]
        return [await self._answer() for _ in range(length)]


class RedisHop:
    """One producer, one consumer."""

    name = NAME

    def __init__(self, pid: int, producer: Connection, consumer: Connection, boxes: int) -> None:
        self._pid = pid
        self._producer, self._consumer = producer, consumer
        self._boxes = boxes
        self._ledger = Ledger()
        self._room = asyncio.Event()

    def processes(self) -> Mapping[int, str]:
        return family(self._pid, NAME)

    async def carry(self, count: int) -> float:
        self._ledger.begin(count)
        began = time.monotonic()
        async with asyncio.timeout(hop.PATIENCE_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(self._produce(count))
            tasks.create_task(self._consume(count))
        self._ledger.balance.check(count)
        return time.monotonic() - began

    async def _produce(self, count: int) -> None:
        for start in range(0, count, hop.BATCH):
            while start - self._ledger.balance.arrived >= hop.OUTSTANDING:
                self._room.clear()
                await self._room.wait()
            batch = range(start, min(start + hop.BATCH, count))
            boxes = [b"m:%d" % (number % self._boxes) for number in batch]
            pushes = [
                (b"RPUSH", box, hop.body(number)) for box, number in zip(boxes, batch, strict=True)
            ]
            await self._producer((b"MULTI",), *pushes, (b"RPUSH", _WAKE, *boxes), (b"EXEC",))

    async def _consume(self, count: int) -> None:
        while self._ledger.balance.arrived < count:
            (woken,) = await self._consumer(
                (b"BLMPOP", _BLOCK_S, b"1", _WAKE, b"LEFT", b"COUNT", b"%d" % hop.BATCH)
            )
            boxes = list(dict.fromkeys(woken[1])) if woken else []
            mails = await self._consumer(*((b"LRANGE", box, b"0", b"-1") for box in boxes))
            for message in (message for mail in mails for message in mail):
                self._ledger.note(hop.number_of(message))
            await self._consumer(
                *(
                    (b"LTRIM", box, b"%d" % len(mail), b"-1")
                    for box, mail in zip(boxes, mails, strict=True)
                )
            )
            self._room.set()


@asynccontextmanager
async def redis_hop(sizes: Sizes) -> AsyncIterator[RedisHop]:
    """A server of its own with AOF, synced at each write."""
    program = found("redis-server", "Debian: redis-server, 7 or newer")
    port = free_port()
    async with (
        fresh_folder(sizes.folder) as folder,
        server(
            *(program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
            port=port,
        ) as process,
        _connection(port) as producer,
        _connection(port) as consumer,
    ):
        yield RedisHop(process.pid, producer, consumer, sizes.mailboxes)


@asynccontextmanager
async def _connection(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


def _command(parts: tuple[bytes, ...]) -> bytes:
    head = b"*%d\r\n" % len(parts)
    return head + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
