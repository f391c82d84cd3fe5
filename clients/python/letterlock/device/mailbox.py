"""A device's Mailbox.Connect stream, opened again as often as it is lost.

Writes submissions and acks in batches, holds deliveries until the device takes them (the relay's
window bounds them), passes answers on. Knows no ratchet and reads no ciphertext: what it is given
to write is durable on this device already.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

import grpc.aio

from letterlock.errors import LetterlockError
from letterlock.reconnect import (
    Sleep,
    opening_answer,
    read_and_write,
    run_until_done,
    stream_opened,
)
from letterlock.relay.v1 import mailbox_pb2
from letterlock.retry import Backoff

MailboxCall = grpc.aio.StreamStreamCall[mailbox_pb2.ConnectRequest, mailbox_pb2.ConnectResponse]

MAX_SUBMISSIONS = 256
MAX_SUBMISSION_BYTES = 3 * 1024 * 1024
MAX_ACKS = 10_000
CLOSE_SECONDS = 5.0


class Mailbox:
    """One device's mailbox at the relay."""

    def __init__(
        self,
        open_call: Callable[[], MailboxCall],
        *,
        window: int,
        unanswered: Callable[[], Iterable[mailbox_pb2.Submission]],
        on_results: Callable[[Iterable[mailbox_pb2.SubmissionResult]], None],
        backoff: Backoff,
        sleep: Sleep,
    ) -> None:
        """`unanswered` gives what is to be submitted on a new stream, oldest first."""
        self.opened = asyncio.Event()
        """Set while the stream is open."""
        self.news = asyncio.Event()
        """Set when deliveries came, or the mailbox has ended."""
        self.failure: LetterlockError | None = None
        self._open_call = open_call
        self._window = window
        self._unanswered = unanswered
        self._on_results = on_results
        self._backoff = backoff
        self._sleep = sleep
        self._to_submit: deque[mailbox_pb2.Submission] = deque()
        self._acks: list[int] = []
        self._failed: list[int] = []
        self._held: deque[mailbox_pb2.Item] = deque()
        self._to_write = asyncio.Event()
        self._ending = False
        self._closing = False

    def submit(self, submission: mailbox_pb2.Submission) -> None:
        """Write a submission as soon as the stream is open. It stays among `unanswered`."""
        if self.opened.is_set():
            self._to_submit.append(submission)
            self._to_write.set()

    def acknowledge(self, item_ids: Iterable[int], failed: Iterable[int] = ()) -> None:
        """Let the relay forget items: what they said is durable here, or what `failed` to be
        decrypted is durably reported."""
        if self.opened.is_set():
            self._acks.extend(item_ids)
            self._failed.extend(failed)
            self._to_write.set()

    def take(self, most: int) -> list[mailbox_pb2.Item]:
        """Deliveries that wait, oldest first."""
        return [self._held.popleft() for _ in range(min(most, len(self._held)))]

    def close(self) -> None:
        """Write what waits, then end the stream; run() returns when the relay has taken it."""
        self._closing = True
        self._to_write.set()

    async def run(self) -> None:
        """Keep the stream open until close(), or until `failure` is set."""
        try:
            await run_until_done(self._attempt, self._backoff, self._sleep)
        except LetterlockError as error:
            self.failure = error
        finally:
            self.news.set()

    async def _attempt(self) -> bool:
        if self._closing:
            return True
        self._ending = False
        call = self._open_call()
        opening = mailbox_pb2.Open(window=self._window)
        await opening_answer(call, mailbox_pb2.ConnectRequest(open=opening))
        stream_opened(self._backoff)
        self._to_submit = deque(self._unanswered())
        self.opened.set()
        try:
            await read_and_write(call, lambda: self._read(call), lambda: self._write(call))
        finally:
            self.opened.clear()
            # What was not acknowledged is delivered again on the next stream.
            self._acks.clear()
            self._failed.clear()
            self._held.clear()
        return self._closing

    async def _read(self, call: MailboxCall) -> None:
        while True:
            frame = await call.read()
            if not isinstance(frame, mailbox_pb2.ConnectResponse):
                return
            if frame.HasField("deliveries"):
                self._held.extend(frame.deliveries.items)
                self.news.set()
            elif frame.HasField("results"):
                self._on_results(frame.results.results)
            elif frame.HasField("draining"):
                self._ending = True
                self._to_write.set()

    async def _write(self, call: MailboxCall) -> None:
        while True:
            if self._acks or self._failed:
                ids, self._acks = self._acks[:MAX_ACKS], self._acks[MAX_ACKS:]
                room = MAX_ACKS - len(ids)
                failed, self._failed = self._failed[:room], self._failed[room:]
                acks = mailbox_pb2.Acks(item_ids=ids, failed_item_ids=failed)
                await call.write(mailbox_pb2.ConnectRequest(acks=acks))
            elif self._to_submit and not self._ending:
                batch = mailbox_pb2.Submissions(submissions=self._next_batch())
                await call.write(mailbox_pb2.ConnectRequest(submissions=batch))
            elif self._closing or self._ending:
                await call.done_writing()
                return
            else:
                self._to_write.clear()
                await self._to_write.wait()

    def _next_batch(self) -> list[mailbox_pb2.Submission]:
        batch: list[mailbox_pb2.Submission] = []
        size = 0
        while self._to_submit and len(batch) < MAX_SUBMISSIONS:
            size += self._to_submit[0].ByteSize()
            if batch and size > MAX_SUBMISSION_BYTES:
                break
            batch.append(self._to_submit.popleft())
        return batch
