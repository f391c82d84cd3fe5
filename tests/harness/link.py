"""A TCP link between two parties of a test that can be cut, slowed, frozen or left unread.

    client ──▶ Link ──▶ server          UP: what the client says, DOWN: what the server says

Sees bytes of TLS alone. What is done to a link concerns the connections that are open at that
moment, but for `slow` and `refuse`, which last until they are taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

UP, DOWN = "up", "down"
_CHUNK = 64 * 1024
_SLOW_CHUNK = 2 * 1024


class _Connection:
    """Both halves of one connection, and whether each of them flows."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._ends = (near, far)
        self.flows = {UP: asyncio.Event(), DOWN: asyncio.Event()}
        for flow in self.flows.values():
            flow.set()

    def abort(self) -> None:
        for end in self._ends:
            end.transport.abort()


class Link:
    """Listens on a port of its own, and connects each caller to `target()`."""

    def __init__(self, target: Callable[[], str]) -> None:
        self._target = target
        self._connections: set[_Connection] = set()
        self._pause = 0.0
        self._refuses = False
        self.address = ""
        self.opened = 0
        """Connections so far."""
        self._passed = {UP: 0, DOWN: 0}
        self._moved = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Link]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_CHUNK)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.sleep(0)

    async def passes(self, way: str, chunks: int) -> None:
        """Wait until so many more pieces have passed; on a quiet connection these are pings."""
        until = self._passed[way] + chunks
        while self._passed[way] < until:
            self._moved.clear()
            await self._moved.wait()

    def cut(self) -> None:
        """Reset what is open, as a router that lost its table."""
        for connection in tuple(self._connections):
            connection.abort()

    @asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """Nobody comes through, now and for a while: the other side's network is away."""
        self._refuses = True
        self.cut()
        try:
            yield
        finally:
            self._refuses = False

    @asynccontextmanager
    async def slow(self, pause_seconds: float) -> AsyncIterator[None]:
        """A pause after each 2 kB, for every connection."""
        self._pause = pause_seconds
        try:
            yield
        finally:
            self._pause = 0.0

    @asynccontextmanager
    async def held(self, *ways: str) -> AsyncIterator[None]:
        """Nothing is read from one side, or from both: the senders' buffers fill. Both is a
        connection that is half open: each end believes in it, nothing arrives. New connections
        are not concerned."""
        held = tuple(self._connections)
        for connection in held:
            for way in ways:
                connection.flows[way].clear()
        try:
            yield
        finally:
            for connection in held:
                for way in ways:
                    connection.flows[way].set()

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        if self._refuses:
            near.transport.abort()
            return
        host, _, port = self._target().rpartition(":")
        try:
            answers, far = await asyncio.open_connection(host, int(port), limit=_CHUNK)
        except OSError:
            near.transport.abort()
            return
        connection = _Connection(near, far)
        self._connections.add(connection)
        self.opened += 1
        try:
            await asyncio.gather(
                self._pump(UP, reader, far, connection.flows[UP]),
                self._pump(DOWN, answers, near, connection.flows[DOWN]),
            )
        except (OSError, asyncio.CancelledError):
            pass  # one end is gone: so is the connection
        finally:
            connection.abort()
            self._connections.discard(connection)

    async def _pump(
        self,
        way: str,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        flows: asyncio.Event,
    ) -> None:
        while data := await source.read(_SLOW_CHUNK if self._pause else _CHUNK):
            await flows.wait()
            if self._pause:
                await asyncio.sleep(self._pause)
            sink.write(data)
            await sink.drain()
            self._passed[way] += 1
            self._moved.set()
        with contextlib.suppress(OSError):
            sink.write_eof()
