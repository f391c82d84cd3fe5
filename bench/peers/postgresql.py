"""PostgreSQL as a queue: a table, 64 rows a commit, SKIP LOCKED, synchronous_commit on.

Producers insert with `unnest`; consumers delete what they took, deliver, and commit: a consumer
that dies before gives its rows back.
"""

from __future__ import annotations

import asyncio
import getpass
import glob
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from bench import hop
from bench.ledger import Ledger, LedgerError
from bench.peers.server import Missing, family, found, free_port, fresh_folder, server
from bench.row import Sizes

NAME = "postgresql"
PRODUCERS = CONSUMERS = 2
_PAUSE_S = 0.001
_START_S = 30.0
_AS_POSTGRES = ("--reuid=postgres", "--regid=postgres", "--init-groups")
_TABLE = "CREATE TABLE mail (id bigserial PRIMARY KEY, mailbox int NOT NULL, body bytea NOT NULL)"
_INSERT = "INSERT INTO mail (mailbox, body) SELECT * FROM unnest($1::int[], $2::bytea[])"
_TAKE = (
    "DELETE FROM mail WHERE id IN "
    "(SELECT id FROM mail ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING body"
)


class PostgresqlHop:
    """Some producers and consumers, a connection each."""

    name = NAME

    def __init__(self, pid: int, connections: list[Any], boxes: int) -> None:
        self._pid = pid
        self._producers, self._consumers = connections[:PRODUCERS], connections[PRODUCERS:]
        self._boxes = boxes
        self._ledger = Ledger()
        self._room = asyncio.Event()

    def processes(self) -> Mapping[int, str]:
        return family(self._pid, NAME)

    async def carry(self, count: int) -> float:
        self._ledger.begin(count)
        starts = iter(range(0, count, hop.BATCH))
        began = time.monotonic()
        async with asyncio.timeout(hop.PATIENCE_S), asyncio.TaskGroup() as tasks:
            for connection in self._producers:
                tasks.create_task(self._produce(connection, starts, count))
            for connection in self._consumers:
                tasks.create_task(self._consume(connection, count))
        self._ledger.balance.check(count)
        return time.monotonic() - began

    async def _produce(self, connection: Any, starts: Iterator[int], count: int) -> None:
        for start in starts:
            while start - self._ledger.balance.arrived >= hop.OUTSTANDING:
                self._room.clear()
                await self._room.wait()
            batch = range(start, min(start + hop.BATCH, count))
            boxes = [number % self._boxes for number in batch]
            await connection.execute(_INSERT, boxes, [hop.body(number) for number in batch])

    async def _consume(self, connection: Any, count: int) -> None:
        while self._ledger.balance.arrived < count:
            async with connection.transaction():
                rows = await connection.fetch(_TAKE, hop.BATCH)
                for row in rows:
                    self._ledger.note(hop.number_of(row["body"]))
            self._room.set()
            if not rows:
                await asyncio.sleep(_PAUSE_S)


@asynccontextmanager
async def postgresql_hop(sizes: Sizes) -> AsyncIterator[PostgresqlHop]:
    """A cluster of its own, with the settings it is shipped with but for its place."""
    try:
        import asyncpg  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError:
        raise Missing("no asyncpg here (PyPI)") from None
    hint = "Debian: postgresql"
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)
    initdb, postgres = found("initdb", hint, *folders), found("postgres", hint, *folders)
    # Its server does not run as root.
    user = "postgres" if os.geteuid() == 0 else None
    become = () if user is None else (found("setpriv", "Debian: util-linux"), *_AS_POSTGRES)
    port = free_port()
    async with AsyncExitStack() as opened:
        folder = await opened.enter_async_context(fresh_folder(sizes.folder, user))
        data = str(folder / "data")
        await _ran(*become, initdb, "-D", data, "-A", "trust", "--no-locale", "-E", "UTF8")
        process = await opened.enter_async_context(
            server(
                *(
                    *become,
                    postgres,
                    "-D",
                    data,
                    "-p",
                    str(port),
                    "-k",
                    str(folder),
                    "-h",
                    "127.0.0.1",
                ),
                port=port,
            )
        )
        name = user or getpass.getuser()
        connections = []
        for _ in range(PRODUCERS + CONSUMERS):
            connection = await _connected(asyncpg, port, name)
            opened.push_async_callback(connection.close)
            connections.append(connection)
        await connections[0].execute(_TABLE)
        yield PostgresqlHop(process.pid, connections, sizes.mailboxes)


async def _ran(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    if process.returncode:
        told = errors.decode()[-200:]
        raise LedgerError(f"{command[0]} ended with {process.returncode}: {told}")


async def _connected(asyncpg: Any, port: int, user: str) -> Any:
    """A connection; a server that takes connections may still be starting up."""
    async with asyncio.timeout(_START_S):
        while True:
            try:
                return await asyncpg.connect(
                    host="127.0.0.1", port=port, user=user, database="postgres"
                )
            except asyncpg.CannotConnectNowError:
                await asyncio.sleep(_PAUSE_S)
