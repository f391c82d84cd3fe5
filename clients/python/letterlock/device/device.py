"""A user's device: registers, sends and receives, end-to-end encrypted.

The public face: opens store and channel, comes to an account (registration.py), and hands the work
to a Connection (connection.py). The ratchet runs on the event loop, some tens of microseconds a
message.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Self

import grpc.aio
from tripleratchet import SafetyNumber

from letterlock.channel import open_channel
from letterlock.closing import Closing
from letterlock.content.checks import text_content
from letterlock.content.v1 import content_pb2
from letterlock.device.connection import Connection, ConnectionOptions
from letterlock.device.events import DeviceEvent, IncomingMessage
from letterlock.device.keys import MAX_UPLOAD
from letterlock.device.link import DeviceLink
from letterlock.device.registration import Registration
from letterlock.device.relay import Relay
from letterlock.device.rows import SELF
from letterlock.device.sender import DEFAULT_TIME_TO_LIVE
from letterlock.device.state import DeviceState
from letterlock.device.store import DeviceStore
from letterlock.errors import DeviceError, NotFound
from letterlock.reconnect import Sleep
from letterlock.relay.v1 import accounts_pb2
from letterlock.retry import Backoff, RetryPolicy


class Device(Closing):
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
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._target, self._ca, self._insecure = target, ca, insecure
        self._given_channel = channel
        self._channel = channel
        self._store = store
        self._deadline = deadline
        self._retry = retry or RetryPolicy()
        self._jitter = jitter
        self._options = ConnectionOptions(
            window=window,
            one_time_pre_keys=min(one_time_pre_keys, MAX_UPLOAD),
            read_receipts=read_receipts,
            backoff=lambda: Backoff(self._retry, jitter),
            sleep=sleep,
            random=os.urandom,
            now_ms=now_ms,
        )
        self._state: DeviceState | None = None
        self._relay_calls: Relay | None = None
        self._connection: Connection | None = None

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
                sleep=self._options.sleep,
            )
            if SELF in stored:
                self._open_state(stored)
        except BaseException:
            await self._store.close()
            raise
        return self

    async def aclose(self) -> None:
        """Commit what was acked, write what waits, end the stream, close the store."""
        if self._connection is not None:
            await self._connection.close()
        if self._channel is not None and self._given_channel is None:
            await self._channel.close()
            self._channel = None
        await self._store.close()

    @property
    def is_registered(self) -> bool:
        """Whether this device belongs to an account."""
        return self._state is not None

    @property
    def unsent(self) -> int:
        """How many messages wait in this device for the relay. Raises DeviceError before
        registration."""
        return len(self._registered.outbox)

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

    def safety_number(self, party: str | bytes) -> SafetyNumber:
        """The safety number with a party of a conversation, by number (E.164) or account id (16
        bytes): `displayable` is what both read out, `scannable` what the other side scans,
        `compare()` takes what was scanned there. Raises NotFound."""
        account = party if isinstance(party, bytes) else self._registered.account_of(party)
        found = account and self._registered.sessions.safety_number(account)
        if not found:
            raise NotFound("no conversation with this party")
        return found

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
        await self._connected.close()
        await self._relay.delete_account()
        self._state = self._connection = None
        await self._store.clear()

    async def connect(self) -> None:
        """Open the mailbox stream and wait until it is open. Raises what keeps it from opening."""
        await self._connected.open()

    async def send_text(self, to: str | bytes, text: str, *, wait: bool = True) -> bytes:
        """Send a text; see send()."""
        return await self.send(to, text_content(text), wait=wait)

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
        return await self._connected.send(
            to, content, time_to_live=time_to_live, wait=wait, ephemeral=ephemeral
        )

    async def events(self) -> AsyncIterator[DeviceEvent]:
        """Events without end; see next_event()."""
        while True:
            yield await self.next_event()

    async def next_event(self) -> DeviceEvent:
        """The next thing that happened. Deliveries are decrypted as they are asked for here, so
        what is not asked for stays at the relay. One caller at a time.

        Raises Replaced or Unauthenticated when this device may no longer connect.
        """
        return await self._connected.next_event()

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
        options = self._options
        return Registration(self._relay, options.one_time_pre_keys, options.random, options.now_ms)

    @property
    def _connected(self) -> Connection:
        if self._connection is None:
            raise DeviceError("device is not registered")
        return self._connection

    async def _become(self, rows: dict[bytes, bytes]) -> None:
        await self._store.commit(rows)
        self._open_state(rows)

    def _open_state(self, stored: dict[bytes, bytes]) -> None:
        state = DeviceState(
            self._store, stored, random=self._options.random, on_ack=self._on_message_ack
        )
        self._relay.use_credential(state.account.credential)
        self._state = state
        self._connection = Connection(state, self._relay, self._options)

    def _on_message_ack(self, message: IncomingMessage) -> None:
        self._connected.acked(message)
