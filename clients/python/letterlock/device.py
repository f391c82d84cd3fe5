"""A user's device: registers, sends and receives, end-to-end encrypted.

Joins the state (device_state.py), the relay's calls (device_relay.py) and the mailbox stream
(device_mailbox.py). The order is always: change the state, commit, then let anything out. The
ratchet runs on the event loop, some tens of microseconds a message.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self

import grpc.aio
from tripleratchet import SessionNotFound

from letterlock.channel import open_channel
from letterlock.content.v1 import content_pb2
from letterlock.device_chores import Chores
from letterlock.device_events import DeviceEvent, IdentityChanged, IncomingMessage, SendRefused
from letterlock.device_keys import MAX_UPLOAD
from letterlock.device_link import DeviceLink
from letterlock.device_mailbox import CLOSE_SECONDS, Mailbox
from letterlock.device_outbox import Waiting
from letterlock.device_registration import Registration
from letterlock.device_relay import Relay
from letterlock.device_rows import SELF, new_message_id
from letterlock.device_state import DeviceState
from letterlock.device_store import DeviceStore
from letterlock.errors import DeviceError, DevicesChanged, InvalidRequest, LetterlockError
from letterlock.faults import from_refusal
from letterlock.reconnect import Sleep
from letterlock.relay.v1 import accounts_pb2, keys_pb2, mailbox_pb2
from letterlock.retry import Backoff, RetryPolicy
from letterlock.v1 import errors_pb2

DEFAULT_TIME_TO_LIVE = 30 * 24 * 3600.0 - 3600.0
"""An hour below the relay's 30 days, for clocks that differ. Seconds."""

MAX_RECEIPT_IDS = 100
TAKE_AT_ONCE = 256
"""Deliveries that share one commit."""

_log = logging.getLogger("letterlock")


class Device:
    """One device of one user. Use it with `async with`; then `register()` or `link()` once.

    `store` keeps its state: a FileStore, or a MemoryStore for trials. `channel` (the caller's own,
    not closed here) replaces `target`, so that many devices of a process share a connection.
    `one_time_pre_keys` of each kind are kept in the directory (0: none, and no top-up). With
    `read_receipts` every acked text is reported as read.
    """

    def __init__(
        self,
        target: str,
        *,
        store: DeviceStore,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        channel: grpc.aio.Channel | None = None,
        window: int = 256,
        one_time_pre_keys: int = 100,
        read_receipts: bool = False,
        deadline: float = 10.0,
        retry: RetryPolicy | None = None,
        jitter: Callable[[], float] = random.random,
        sleep: Sleep = asyncio.sleep,
        random_bytes: Callable[[int], bytes] = os.urandom,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._target, self._ca, self._insecure = target, ca, insecure
        self._given_channel = channel
        self._channel = channel
        self._store = store
        self._window = window
        self._pre_keys = min(one_time_pre_keys, MAX_UPLOAD)
        self._read_receipts = read_receipts
        self._deadline = deadline
        self._retry = retry or RetryPolicy()
        self._jitter, self._sleep = jitter, sleep
        self._random, self._now_ms = random_bytes, now_ms
        self._state: DeviceState | None = None
        self._relay_calls: Relay | None = None
        self._mailbox: Mailbox | None = None
        self._runner: asyncio.Task[None] | None = None
        self._ready: deque[DeviceEvent] = deque()
        self._to_receipt: dict[bytes, list[bytes]] = {}
        self._chores: Chores | None = None
        self._taking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        stored = await self._store.load()
        try:
            if self._channel is None:
                self._channel = open_channel(self._target, ca=self._ca, insecure=self._insecure)
            self._relay_calls = Relay(
                self._channel,
                deadline=self._deadline,
                retry=self._retry,
                jitter=self._jitter,
                sleep=self._sleep,
            )
            if SELF in stored:
                self._open_state(stored)
        except BaseException:
            await self._store.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Commit what was acked, write what waits, end the stream, close the store."""
        if self._taking is not None:
            await asyncio.wait([self._taking])
        if self._state is not None and not self._state.is_broken:
            try:
                await self._flush()
            except LetterlockError as error:
                _log.warning("read receipts were not sent", extra={"reason": error.reason})
        await self._disconnect()
        if self._channel is not None and self._given_channel is None:
            await self._channel.close()
            self._channel = None
        await self._store.close()

    @property
    def is_registered(self) -> bool:
        """Whether this device belongs to an account."""
        return self._state is not None

    @property
    def account_id(self) -> bytes:
        """The account, 16 bytes. Raises DeviceError before registration."""
        return self._registered.account.account_id

    @property
    def device_id(self) -> int:
        """The device within the account, 1 to 127. Raises DeviceError before registration."""
        return self._registered.account.device_id

    def identity_of(self, account_id: bytes) -> bytes | None:
        """The identity key (33 bytes) last seen of an account, for safety numbers."""
        return self._registered.sessions.identity(account_id)

    async def request_verification(self, phone_number: str) -> str:
        """Have a code sent to a number; gives the verification id for register()."""
        answer = await self._relay.request_verification(phone_number)
        return answer.verification_id

    async def register(self, phone_number: str, verification_id: str, code: str) -> None:
        """Make the account of a number, or take the number over, with this as its first device.

        Raises VerificationFailed, InvalidRequest, DeviceError.
        """
        await self._become(await self._registration.register(phone_number, verification_id, code))

    async def create_link(self) -> DeviceLink:
        """What a further device needs to join this account. Secret; good once, for minutes."""
        account = self._registered.account
        answer = await self._relay.create_device_link()
        return DeviceLink(answer.link_token, account.phone_number, account.identity_private)

    async def link(self, link: DeviceLink) -> None:
        """Join an account as a further device. Raises LetterlockError."""
        await self._become(await self._registration.link(link))

    async def devices(self) -> list[accounts_pb2.Device]:
        """The devices of this account."""
        return list((await self._relay.list_devices()).devices)

    async def remove_device(self, device_id: int) -> None:
        """Remove a further device of this account, with its mailbox."""
        await self._relay.remove_device(device_id)

    async def delete_account(self) -> None:
        """Remove the account from the relay, and everything of it from this device."""
        await self._disconnect()
        await self._relay.delete_account()
        self._state = None
        await self._store.clear()

    async def connect(self) -> None:
        """Open the mailbox stream and wait until it is open. Raises what keeps it from opening."""
        mailbox = self._start()
        opened = asyncio.ensure_future(mailbox.opened.wait())
        runner = self._runner
        if runner is None:
            raise DeviceError("device is closed")
        try:
            await asyncio.wait([opened, runner], return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
        if mailbox.failure is not None:
            raise mailbox.failure

    async def send_text(self, to: str | bytes, text: str, *, wait: bool = True) -> bytes:
        """Send a text; see send()."""
        return await self.send(to, content_pb2.Content(text=content_pb2.Text(body=text)), wait=wait)

    async def send_reaction(
        self, to: str | bytes, message_id: bytes, emoji: str, *, removed: bool = False
    ) -> bytes:
        """Put an emoji on a message, or take it back."""
        reaction = content_pb2.Reaction(message_id=message_id, emoji=emoji, removed=removed)
        return await self.send(to, content_pb2.Content(reaction=reaction))

    async def send_read_receipt(self, to: str | bytes, message_ids: Iterable[bytes]) -> bytes:
        """Say that messages (1 to 100) were read."""
        receipt = content_pb2.ReadReceipt(message_ids=message_ids)
        return await self.send(to, content_pb2.Content(read_receipt=receipt))

    async def send_typing(self, to: str | bytes, *, started: bool = True) -> None:
        """Show that somebody is writing; reaches only devices that are connected now."""
        content = content_pb2.Content(typing=content_pb2.Typing(started=started))
        await self.send(to, content, wait=False, ephemeral=True)

    async def send(
        self,
        to: str | bytes,
        content: content_pb2.Content,
        *,
        time_to_live: float = DEFAULT_TIME_TO_LIVE,
        wait: bool = True,
        ephemeral: bool = False,
    ) -> bytes:
        """Encrypt for every device of `to` (E.164, or an account's 16 bytes) and submit.

        Gives the message id. With `wait` it returns once the relay has it durably, however long
        there is no connection, and raises what the relay refused it for; without, it returns once
        it is durable here, and a refusal becomes a SendRefused event.
        """
        state = self._registered
        self._start()
        account_id = await self._account_of(to)
        await state.outbox.room.acquire()
        answered = asyncio.get_running_loop().create_future() if wait else None
        message_id = await self._submit(account_id, content, time_to_live, ephemeral, answered)
        if answered is not None:
            await answered
        return message_id

    async def events(self) -> AsyncIterator[DeviceEvent]:
        """Events without end; see next_event()."""
        while True:
            yield await self.next_event()

    async def next_event(self) -> DeviceEvent:
        """The next thing that happened. Deliveries are decrypted as they are asked for here, so
        what is not asked for stays at the relay. One caller at a time.

        Raises Replaced or Unauthenticated when this device may no longer connect.
        """
        mailbox = self._start()
        while not self._ready:
            await self._flush()
            mailbox.news.clear()
            if self._taking is None and (items := mailbox.take(TAKE_AT_ONCE)):
                self._taking = asyncio.create_task(self._take_in(mailbox, items))
            if self._taking is not None:
                # A caller that gives up leaves the batch to go through: it is given out next time.
                await asyncio.shield(self._taking)
                self._taking = None
            elif mailbox.failure is not None:
                raise mailbox.failure
            elif not self._ready:
                await mailbox.news.wait()
        return self._ready.popleft()

    @property
    def _registered(self) -> DeviceState:
        if self._state is None:
            raise DeviceError("device is not registered")
        return self._state

    @property
    def _relay(self) -> Relay:
        if self._relay_calls is None:
            raise DeviceError("device is not open: use it with async with")
        return self._relay_calls

    @property
    def _registration(self) -> Registration:
        if self._state is not None:
            raise DeviceError("device belongs to an account already")
        return Registration(self._relay, self._pre_keys, self._random, self._now_ms)

    async def _become(self, rows: dict[bytes, bytes]) -> None:
        await self._store.commit(rows)
        self._open_state(rows)

    def _open_state(self, stored: dict[bytes, bytes]) -> None:
        self._state = DeviceState(
            self._store, stored, random=self._random, on_ack=self._on_message_ack
        )
        self._ready.extend(self._state.inbox.unacknowledged)
        self._relay.use_credential(self._state.account.credential)

    def _start(self) -> Mailbox:
        state = self._registered
        if self._mailbox is None:
            self._mailbox = Mailbox(
                self._relay.connect,
                window=self._window,
                unanswered=state.outbox.submissions,
                on_results=self._on_results,
                backoff=Backoff(self._retry, self._jitter),
                sleep=self._sleep,
            )
            self._chores = Chores(
                state,
                self._relay,
                one_time_pre_keys=self._pre_keys,
                settle=self._settle,
                tell=self._tell,
                random=self._random,
                now_ms=self._now_ms,
            )
            self._runner = asyncio.create_task(
                self._run(self._mailbox, self._chores), name="letterlock-device"
            )
        return self._mailbox

    async def _run(self, mailbox: Mailbox, chores: Chores) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = tasks.create_task(chores.run(mailbox))
                try:
                    await mailbox.run()
                finally:
                    beside.cancel()
        except Exception as error:  # a bug: whoever waits must hear of it, not wait for ever
            _log.exception("connection ended by a bug")
            mailbox.failure = DeviceError(f"connection ended by {type(error).__name__}")
            mailbox.news.set()
        if mailbox.failure is not None:
            self._registered.outbox.fail(mailbox.failure)

    async def _disconnect(self) -> None:
        mailbox, runner = self._mailbox, self._runner
        self._mailbox = self._runner = self._chores = None
        if mailbox is None or runner is None:
            return
        mailbox.close()
        if mailbox.opened.is_set():
            await asyncio.wait([runner], timeout=CLOSE_SECONDS)
        runner.cancel()
        await asyncio.wait([runner])

    async def _account_of(self, to: str | bytes) -> bytes:
        state = self._registered
        if isinstance(to, bytes):
            if len(to) != 16:
                raise InvalidRequest("no account", field="to", limit="16 bytes or E.164")
            return to
        known = state.account_of(to)
        if known is not None:
            return known
        bundles = await self._relay.fetch_bundles(keys_pb2.BundleTarget(phone_number=to))
        async with state.turn():
            state.remember_number(to, bundles.account_id)
            self._start_sessions(bundles)
        return bundles.account_id

    def _start_sessions(self, bundles: keys_pb2.AccountBundles) -> None:
        if self._registered.sessions.start(bundles, self._now_ms()):
            self._tell(IdentityChanged(bundles.account_id))

    async def _submit(
        self,
        account_id: bytes,
        content: content_pb2.Content,
        time_to_live: float,
        ephemeral: bool,
        answered: asyncio.Future[None] | None,
    ) -> bytes:
        state, mailbox = self._registered, self._start()
        entry: Waiting | None = None
        try:
            if mailbox.failure is not None:
                raise mailbox.failure
            payload, expires_ms = self._new_payload(content, time_to_live)
            if not state.sessions.devices(account_id):
                await self._introduce(account_id)
            async with state.turn():
                plaintext, envelopes = state.encrypt(account_id, payload, self._now_ms())
                submission = mailbox_pb2.Submission(
                    message_id=payload.message_id,
                    recipient_account_id=account_id,
                    envelopes=envelopes,
                    receipt_wanted=not ephemeral,
                    ephemeral=ephemeral,
                )
                submission.expire_time.FromMilliseconds(expires_ms)
                entry = Waiting(submission, plaintext, answered)
                state.outbox.add(entry)
        except SessionNotFound:
            raise DevicesChanged("the recipient has no usable device") from None
        finally:
            # Durable is durable, even when the caller gave up during the commit.
            if entry is None:
                state.outbox.room.release()
            elif not state.is_broken:
                entry.is_durable = True
                mailbox.submit(entry.submission)
        return payload.message_id

    def _new_payload(
        self, content: content_pb2.Content, time_to_live: float
    ) -> tuple[content_pb2.Payload, int]:
        if not content.WhichOneof("kind"):
            raise InvalidRequest("nothing to say", field="content", limit="one kind is set")
        if not 1 <= time_to_live <= DEFAULT_TIME_TO_LIVE:
            limit = f"1 to {DEFAULT_TIME_TO_LIVE:.0f} seconds"
            raise InvalidRequest("time to live", field="time_to_live", limit=limit)
        now_ms = self._now_ms()
        payload = content_pb2.Payload(
            message_id=new_message_id(now_ms, self._random), content=content
        )
        payload.sent_time.FromMilliseconds(now_ms)
        return payload, now_ms + int(time_to_live * 1000)

    async def _introduce(self, account_id: bytes) -> None:
        target = keys_pb2.BundleTarget(account_id=account_id)
        bundles = await self._relay.fetch_bundles(target)
        async with self._registered.turn():
            self._start_sessions(bundles)

    async def _take_in(self, mailbox: Mailbox, items: list[mailbox_pb2.Item]) -> None:
        state, now_ms = self._registered, self._now_ms()
        events: list[DeviceEvent] = []
        async with state.turn():
            for item in items:
                events += state.inbox.take_in(item, now_ms)
        self._ready.extend(events)
        mailbox.acknowledge([item.item_id for item in items])
        if self._chores is not None:
            self._chores.keys_used()

    def _on_message_ack(self, message: IncomingMessage) -> None:
        self._registered.inbox.acknowledge(message)
        if self._read_receipts and message.text is not None:
            self._to_receipt.setdefault(message.sender, []).append(message.message_id)

    async def _flush(self) -> None:
        """Send the read receipts that are due, and commit what was acked."""
        while self._to_receipt:
            account_id, message_ids = self._to_receipt.popitem()
            for start in range(0, len(message_ids), MAX_RECEIPT_IDS):
                batch = message_ids[start : start + MAX_RECEIPT_IDS]
                receipt = content_pb2.ReadReceipt(message_ids=batch)
                await self.send(account_id, content_pb2.Content(read_receipt=receipt), wait=False)
        if self._registered.rows:
            async with self._registered.turn():
                pass

    def _on_results(self, results: Iterable[mailbox_pb2.SubmissionResult]) -> None:
        for result in results:
            if not result.HasField("refused"):
                self._settle(result.message_id, None)
            elif result.refused.reason == errors_pb2.ERROR_REASON_DEVICES_CHANGED:
                if self._chores is not None:
                    self._chores.repair(result)
            elif result.refused.reason != errors_pb2.ERROR_REASON_DRAINING:
                self._settle(result.message_id, from_refusal(result.refused))

    def _settle(self, message_id: bytes, error: LetterlockError | None) -> None:
        heard = self._registered.outbox.settle(message_id, error)
        if error is not None and not heard:
            self._tell(SendRefused(message_id, error))

    def _tell(self, event: DeviceEvent) -> None:
        self._ready.append(event)
        if self._mailbox is not None:
            self._mailbox.news.set()
