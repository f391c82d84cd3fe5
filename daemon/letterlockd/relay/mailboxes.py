"""Opens mailbox streams and takes their frames: the reading side of `Mailbox.Connect`.

    open ──▶ Connection registered, an older one ended ──▶ frames: submissions │ acks
                                                                   ▼             ▼
                                                                intake        journal

A stream is not read while too much of it, or of all streams together, is undecided: that is how
pressure reaches the sender (I6). Knows nothing of gRPC.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from letterlock.relay.v1.mailbox_pb2 import Acks, ConnectRequest, Open, Submissions

from letterlockd.clock import Clock
from letterlockd.errors import BusyError, CallerError, InvalidField, Unauthenticated
from letterlockd.relay.connection import Completion, Connection, FrameLimits
from letterlockd.relay.credentials import Caller, GatewayCaller
from letterlockd.relay.directory import Directory
from letterlockd.relay.intake import Intake
from letterlockd.relay.items import Debt
from letterlockd.relay.journal import Journal
from letterlockd.relay.levels import Levels
from letterlockd.relay.marks import Marks
from letterlockd.relay.pasts import Pasts
from letterlockd.relay.receipts import Acknowledged
from letterlockd.relay.sender_numbers import SenderNumbers
from letterlockd.relay.settings import RelaySettings
from letterlockd.relay.switchboard import Switchboard
from letterlockd.store.port import Store

__all__ = ["MAX_ACKS", "MAX_SUBMISSIONS", "MAX_SUBMISSIONS_BYTES", "Mailboxes"]

MAX_SUBMISSIONS = 256
MAX_SUBMISSIONS_BYTES = 4 * 1024 * 1024
MAX_ACKS = 10_000

_DRAINING_RETRY_MS = 1_000


class Mailboxes:
    """Streams of devices and gateways."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        pasts: Pasts,
        marks: Marks,
        levels: Levels,
        intake: Intake,
        journal: Journal,
        switchboard: Switchboard,
        clock: Clock,
        settings: RelaySettings,
    ) -> None:
        self._store = store
        self._directory = directory
        self._numbers = SenderNumbers(directory)
        self._pasts = pasts
        self._marks = marks
        self._levels = levels
        self._intake = intake
        self._journal = journal
        self._switchboard = switchboard
        self._clock = clock
        self._settings = settings
        self._draining = False

    async def open(self, caller: Caller, first: ConnectRequest) -> Connection:
        """The stream of the caller's mailbox, registered; pair with `close`.

        Raises `InvalidField`; `CallerError` (UNEXPECTED_FRAME) unless the frame is `open`;
        `Unauthenticated` for a device that was just removed; `BusyError` (DRAINING).
        """
        if first.WhichOneof("frame") != "open":
            raise _unexpected("the first frame must be `open`")
        if self._draining:
            raise BusyError(
                "the relay is stopping", retry_after_ms=_DRAINING_RETRY_MS, reason="DRAINING"
            )
        connection = self._connection(caller, self._window(first.open))
        if isinstance(caller, GatewayCaller):
            await self._marks.shown(first.open.store_mark)
            connection.newer_generation = self._pasts.opened(
                caller.gateway_id, first.open.store_generation, first.open.store_position
            )
        await self._levels.know([connection.mailbox])
        self._switchboard.connect(connection)
        connection.departing = self._journal.leaving(connection.mailbox)
        try:
            await self._check_still_there(caller)
        except BaseException:
            self.close(connection)
            raise
        return connection

    def frames(self, caller: Caller, connection: Connection) -> AsyncIterator[bytes]:
        """What goes out on the stream, serialised, until it ends."""
        frames = connection.frames()
        return self._marks.among(frames) if isinstance(caller, GatewayCaller) else frames

    def close(self, connection: Connection) -> None:
        """The stream is over; what it had unacknowledged is delivered again on the next one."""
        connection.end()
        self._switchboard.disconnect(connection)

    async def take(self, caller: Caller, connection: Connection, frame: ConnectRequest) -> None:
        """Work on one frame; returns when the next one may be read.

        Raises `InvalidField`, `CallerError` (UNEXPECTED_FRAME, TOO_LARGE): the stream is over then.
        """
        if frame.store_position and isinstance(caller, GatewayCaller):
            self._pasts.heard(caller.gateway_id, frame.store_position)
        kind = frame.WhichOneof("frame")
        if kind == "submissions":
            await self._submit(caller, connection, frame.submissions)
        elif kind == "acks":
            await self._acknowledge(connection, frame.acks)
        else:
            raise _unexpected("only submissions and acks may follow `open`")

    async def drain(self, grace_ms: int) -> None:
        """Refuse new streams and end the open ones once they are answered. Returns when all have
        ended; the caller sets the deadline."""
        self._draining = True
        await self._switchboard.drain(grace_ms)

    async def _submit(self, caller: Caller, connection: Connection, frame: Submissions) -> None:
        count = len(frame.submissions)
        if not 1 <= count <= MAX_SUBMISSIONS:
            raise InvalidField("submissions.submissions", f"1 to {MAX_SUBMISSIONS}")
        if frame.ByteSize() > MAX_SUBMISSIONS_BYTES:
            raise CallerError(
                f"submissions: at most {MAX_SUBMISSIONS_BYTES} bytes", reason="TOO_LARGE"
            )
        await connection.answers_below(self._settings.max_unanswered)
        await self._intake.submit(connection, caller, frame.submissions)

    async def _acknowledge(self, connection: Connection, acks: Acks) -> None:
        failed = acks.failed_item_ids[:]
        item_ids = acks.item_ids[:] + failed
        if not 1 <= len(item_ids) <= MAX_ACKS:
            raise InvalidField("acks.item_ids", f"1 to {MAX_ACKS}")
        await self._journal.room()
        out = connection.acknowledge(item_ids)
        if not out:
            return
        stored: list[tuple[int, Debt | None]] = []
        size = 0
        for item_id, entry in out:
            if entry.size:
                stored.append((item_id, entry.debt))
                size += entry.size
        if not stored:
            connection.made_room(len(out))
            return
        done = partial(self._acknowledged, connection, len(out), len(stored), size)
        self._journal.settle(
            Acknowledged(connection.mailbox, connection.device_id, stored, done, frozenset(failed))
        )

    def _acknowledged(self, connection: Connection, count: int, rows: int, size: int) -> None:
        """`count` items are done with; `rows` of them, of `size` bytes in all, were stored."""
        self._levels.added(connection.mailbox, -size, -rows)
        connection.made_room(count)

    def _connection(self, caller: Caller, window: int) -> Connection:
        settings = self._settings
        if isinstance(caller, GatewayCaller):
            mailbox, device_id = self._pasts.mailboxes[caller.gateway_id], 1
            complete: Completion | None = self._numbers.complete
            limits = FrameLimits(settings.gateway_frame_bytes, settings.max_frame_items)
        else:
            mailbox, device_id, complete = caller.slot, caller.device_id, None
            limits = FrameLimits(settings.device_frame_bytes, settings.max_frame_items)
        return Connection(mailbox, device_id, window, limits, self._store, self._clock, complete)

    def _window(self, first: Open) -> int:
        window = first.window or self._settings.default_window
        if window > self._settings.max_window:
            raise InvalidField("open.window", f"1 to {self._settings.max_window}")
        return window

    async def _check_still_there(self, caller: Caller) -> None:
        # A device removed between its authentication and this stream's registration would not have
        # been told; after this look it will be.
        if isinstance(caller, GatewayCaller):
            return
        account = await self._directory.get(caller.account_id)
        device = None if account is None else account.devices.get(caller.device_id)
        if device is None or device.slot != caller.slot:
            raise Unauthenticated("the device was removed")


def _unexpected(text: str) -> CallerError:
    return CallerError(text, reason="UNEXPECTED_FRAME")
