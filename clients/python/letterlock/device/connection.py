"""A registered device at work: sends, receives, does its chores beside one mailbox stream.

Puts sender, mailbox and chores together, and hands out events. The order is always: change the
state, commit, then let anything out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tripleratchet import Random

from letterlock.content.checks import MAX_RECEIPT_IDS
from letterlock.content.v1 import content_pb2
from letterlock.device.chores import Chores
from letterlock.device.events import DeviceEvent, IncomingMessage, SendRefused
from letterlock.device.mailbox import CLOSE_SECONDS, Mailbox
from letterlock.device.outbox import Waiting
from letterlock.device.relay import Relay
from letterlock.device.sender import Sender
from letterlock.device.sent import SentMessage
from letterlock.device.state import DeviceState
from letterlock.errors import DeviceError, LetterlockError
from letterlock.faults import from_refusal
from letterlock.reconnect import Sleep
from letterlock.relay.v1 import mailbox_pb2
from letterlock.retry import Backoff
from letterlock.v1 import errors_pb2

READ_RECEIPT_SECONDS = 7 * 24 * 3600.0
TAKE_AT_ONCE = 256
"""Deliveries that share one commit."""

_log = logging.getLogger("letterlock")


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """How a device works; see Device."""

    window: int
    one_time_pre_keys: int
    read_receipts: bool
    backoff: Callable[[], Backoff]
    sleep: Sleep
    random: Random = field(repr=False)
    now_ms: Callable[[], int]


class Connection:
    """One registered device; the stream is opened by the first use."""

    def __init__(self, state: DeviceState, relay: Relay, options: ConnectionOptions) -> None:
        """Nothing is connected yet."""
        self._state = state
        self._read_receipts = options.read_receipts
        self._ready: deque[DeviceEvent] = deque(state.inbox.unacknowledged)
        self._to_receipt: dict[bytes, list[bytes]] = {}
        self._runner: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[None] | None = None
        self._closed = False
        self._sender = Sender(
            state, relay, tell=self._tell, random=options.random, now_ms=options.now_ms
        )
        self._now_ms = options.now_ms
        self._mailbox = Mailbox(
            relay.connect,
            window=options.window,
            unanswered=state.outbox.submissions,
            on_results=self._on_results,
            backoff=options.backoff(),
            sleep=options.sleep,
        )
        self._chores = Chores(
            state,
            relay,
            one_time_pre_keys=options.one_time_pre_keys,
            settle=self._settle,
            tell=self._tell,
            random=options.random,
            now_ms=options.now_ms,
        )

    async def open(self) -> None:
        """Wait until the stream is open. Raises what keeps it from opening."""
        runner = self._start()
        opened = asyncio.ensure_future(self._mailbox.opened.wait())
        try:
            await asyncio.wait([opened, runner], return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
        self._check()

    async def close(self) -> None:
        """Commit what was acked, write what waits, end the stream; who waits for an answer gets
        DeviceError, and the message goes out with the next connection."""
        if self._closed:
            return
        if self._taking is not None:
            await asyncio.wait([self._taking])
        if not self._state.is_broken:
            try:
                await self._flush()
            except LetterlockError as error:
                _log.warning("last acks were not kept", extra={"reason": error.reason})
        self._closed = True
        if self._runner is not None:
            self._mailbox.close()
            if self._mailbox.opened.is_set():
                await asyncio.wait([self._runner], timeout=CLOSE_SECONDS)
            self._runner.cancel()
            await asyncio.wait([self._runner])
        self._state.outbox.fail(DeviceError("device was closed"))

    async def send(
        self,
        to: str | bytes,
        content: content_pb2.Content,
        *,
        time_to_live: float,
        wait: bool,
        ephemeral: bool,
    ) -> bytes:
        """See Device.send()."""
        self._start()
        payload = self._sender.new_payload(content)
        account_id = await self._sender.account_of(to)
        answered = asyncio.get_running_loop().create_future() if wait else None
        room = self._state.outbox.room
        await room.acquire()
        durable = False

        def committed(entry: Waiting) -> None:
            nonlocal durable
            durable = True
            self._mailbox.submit(entry.submission)

        try:
            self._check()
            await self._sender.seal(
                account_id,
                payload,
                time_to_live=time_to_live,
                ephemeral=ephemeral,
                answered=answered,
                committed=committed,
            )
        finally:
            if not durable:
                room.release()
        if answered is not None:
            await answered
        return payload.message_id

    async def next_event(self) -> DeviceEvent:
        """See Device.next_event()."""
        self._start()
        news = self._mailbox.news
        while not self._ready:
            await self._flush()
            news.clear()
            if self._taking is None and (items := self._mailbox.take(TAKE_AT_ONCE)):
                self._taking = asyncio.create_task(self._take_in(items))
            if self._taking is not None:
                # A caller that gives up leaves the batch to go through: it is given out next time.
                await asyncio.shield(self._taking)
                self._taking = None
            elif not self._ready:
                self._check()
                await news.wait()
        return self._ready.popleft()

    def acked(self, message: IncomingMessage) -> None:
        """The application is done with a message."""
        self._state.inbox.acknowledge(message)
        if self._read_receipts and message.text is not None:
            self._to_receipt.setdefault(message.sender, []).append(message.message_id)

    def _start(self) -> asyncio.Task[None]:
        if self._closed:
            raise DeviceError("device is closed")
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="letterlock-device")
        return self._runner

    def _check(self) -> None:
        if self._mailbox.failure is not None:
            raise self._mailbox.failure

    async def _run(self) -> None:
        mailbox = self._mailbox
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = tasks.create_task(self._chores.run(mailbox))
                try:
                    await mailbox.run()
                finally:
                    beside.cancel()
        except Exception as error:  # a bug: whoever waits must hear of it, not wait for ever
            _log.exception("connection ended by a bug")
            mailbox.failure = DeviceError(f"connection ended by {type(error).__name__}")
            mailbox.news.set()
        if mailbox.failure is not None:
            self._state.outbox.fail(mailbox.failure)

    async def _take_in(self, items: list[mailbox_pb2.Item]) -> None:
        now_ms = self._now_ms()
        async with self._state.turn():
            taken = [(item.item_id, self._state.inbox.take_in(item, now_ms)) for item in items]
        safe, failed = [], []
        for item_id, came in taken:
            self._ready.extend(came.events)
            if came.complaint is not None:
                came.complaint.is_durable = True
                self._mailbox.submit(came.complaint.submission)
                failed.append(item_id)
            elif came.report is not None:
                self._chores.reported(came.report, item_id)
            else:
                safe.append(item_id)
        self._mailbox.acknowledge(safe, failed)
        self._chores.keys_used()

    async def _flush(self) -> None:
        """Send the read receipts that are due, and commit what was acked."""
        while self._to_receipt:
            account_id, message_ids = self._to_receipt.popitem()
            for start in range(0, len(message_ids), MAX_RECEIPT_IDS):
                batch = message_ids[start : start + MAX_RECEIPT_IDS]
                await self._send_read_receipt(account_id, batch)
        if self._state.rows:
            async with self._state.turn():
                pass

    async def _send_read_receipt(self, account_id: bytes, message_ids: list[bytes]) -> None:
        content = content_pb2.Content(read_receipt=content_pb2.ReadReceipt(message_ids=message_ids))
        await self.send(
            account_id, content, time_to_live=READ_RECEIPT_SECONDS, wait=False, ephemeral=False
        )

    def _on_results(self, results: Iterable[mailbox_pb2.SubmissionResult]) -> None:
        for result in results:
            if not result.HasField("refused"):
                self._settle(result.message_id, None)
            elif result.refused.reason == errors_pb2.ERROR_REASON_DEVICES_CHANGED:
                self._chores.repair(result)
            elif result.refused.reason != errors_pb2.ERROR_REASON_DRAINING:
                self._settle(result.message_id, from_refusal(result.refused))

    def _settle(self, message_id: bytes, error: LetterlockError | None) -> None:
        entry = self._state.outbox.get(message_id)
        if entry is not None and error is None:
            self._keep(entry)
        heard = self._state.outbox.settle(message_id, error)
        if error is not None and not heard:
            self._tell(SendRefused(message_id, error))

    def _keep(self, entry: Waiting) -> None:
        """Until a device has taken it, one may still ask for it again."""
        submission = entry.submission
        if submission.receipt_wanted and not entry.is_healing:
            message = SentMessage(
                submission.recipient_account_id,
                submission.expire_time.ToMilliseconds(),
                entry.plaintext,
            )
            self._state.sent.keep(submission.message_id, message, self._now_ms())

    def _tell(self, event: DeviceEvent) -> None:
        self._ready.append(event)
        self._mailbox.news.set()
