"""Which mailboxes have an open stream: one each, a newer one ends the older one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from letterlockd.errors import Conflict, LetterlockError, Unauthenticated
from letterlockd.relay.accounts import Device
from letterlockd.relay.connection import Connection, Outgoing

__all__ = ["Switchboard"]


class Switchboard:
    """Open streams by mailbox."""

    def __init__(self) -> None:
        self._open: dict[int, Connection] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def connect(self, connection: Connection) -> None:
        """Take this stream for its mailbox from now on."""
        older = self._open.get(connection.mailbox)
        self._open[connection.mailbox] = connection
        self._empty.clear()
        if older is not None:
            older.end(Conflict("a newer stream took over", reason="REPLACED"))

    def disconnect(self, connection: Connection) -> None:
        """The stream is over."""
        if self._open.get(connection.mailbox) is connection:
            del self._open[connection.mailbox]
        if not self._open:
            self._empty.set()

    def connected(self, mailbox: int) -> bool:
        """Whether the mailbox has a stream."""
        return mailbox in self._open

    def offer(self, items: Iterable[Outgoing]) -> None:
        """Items were committed: tell the streams of their mailboxes."""
        find = self._open.get
        for item in items:
            connection = find(item.mailbox)
            if connection is not None:
                connection.offer(item)

    def forgive(self, mailbox: int, item_id: int) -> None:
        """An item died; see `Connection.forgive`."""
        connection = self._open.get(mailbox)
        if connection is not None:
            connection.forgive(item_id)

    def removed(self, devices: Iterable[Device]) -> None:
        """Devices were removed: their streams end. A business number has no stream of its own."""
        for device in devices:
            connection = self._open.get(device.slot)
            if connection is not None:
                connection.end(Unauthenticated("the device was removed"))

    def end_all(self, error: LetterlockError) -> None:
        """End every stream."""
        for connection in self._open.values():
            connection.end(error)

    async def drain(self, grace_ms: int) -> None:
        """Tell every stream that the relay is about to stop, and wait until all have ended."""
        for connection in self._open.values():
            connection.drain(grace_ms)
        await self._empty.wait()
