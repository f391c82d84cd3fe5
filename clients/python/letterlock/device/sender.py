"""How a device sends: finds the account, makes sure of sessions, encrypts, commits.

Everything ends in the outbox; what becomes of it there is not this module's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tripleratchet import Random, SessionNotFound

from letterlock.content.checks import check_content
from letterlock.content.v1 import content_pb2
from letterlock.device.events import DeviceEvent, IdentityChanged
from letterlock.device.outbox import Waiting
from letterlock.device.relay import Relay
from letterlock.device.rows import new_message_id
from letterlock.device.state import DeviceState
from letterlock.errors import DevicesChanged, InvalidRequest
from letterlock.relay.v1 import keys_pb2, mailbox_pb2

DEFAULT_TIME_TO_LIVE = 30 * 24 * 3600.0 - 3600.0
"""An hour below the relay's 30 days, for clocks that differ. Seconds."""

ACCOUNT_BYTES = 16


class Sender:
    """The sending half of one device."""

    def __init__(
        self,
        state: DeviceState,
        relay: Relay,
        *,
        tell: Callable[[DeviceEvent], None],
        random: Random,
        now_ms: Callable[[], int],
    ) -> None:
        """`tell` hands an event to the application."""
        self._state = state
        self._relay = relay
        self._tell = tell
        self._random = random
        self._now_ms = now_ms

    async def account_of(self, to: str | bytes) -> bytes:
        """The account of a recipient; of a new number sessions are started along with it.

        Raises InvalidRequest, UnknownRecipient, BadPreKeys.
        """
        if isinstance(to, bytes):
            if len(to) != ACCOUNT_BYTES:
                limit = f"{ACCOUNT_BYTES} bytes or E.164"
                raise InvalidRequest("no account", field="to", limit=limit)
            return to
        known = self._state.account_of(to)
        if known is not None:
            return known
        bundles = await self._relay.fetch_bundles(keys_pb2.BundleTarget(phone_number=to))
        async with self._state.turn():
            self._state.remember_number(to, bundles.account_id)
            self._start_sessions(bundles)
        return bundles.account_id

    def new_payload(self, content: content_pb2.Content) -> content_pb2.Payload:
        """A message with a fresh id and the time. Raises InvalidRequest, TooLarge."""
        check_content(content)
        now_ms = self._now_ms()
        payload = content_pb2.Payload(
            message_id=new_message_id(now_ms, self._random), content=content
        )
        payload.sent_time.FromMilliseconds(now_ms)
        return payload

    async def seal(
        self,
        account_id: bytes,
        payload: content_pb2.Payload,
        *,
        time_to_live: float,
        ephemeral: bool,
        answered: asyncio.Future[None] | None,
        committed: Callable[[Waiting], None],
    ) -> None:
        """Encrypt a payload for every device of an account, and put it into the outbox.

        `committed` is called once it is durable, even when the caller gives up during the commit.
        Raises LetterlockError; then it was not called.
        """
        if not 1 <= time_to_live <= DEFAULT_TIME_TO_LIVE:
            limit = f"1 to {DEFAULT_TIME_TO_LIVE:.0f} seconds"
            raise InvalidRequest("time to live", field="time_to_live", limit=limit)
        if not self._state.sessions.devices(account_id, self._now_ms()):
            await self._introduce(account_id)
        expires_ms = self._now_ms() + int(time_to_live * 1000)
        submission = mailbox_pb2.Submission(
            message_id=payload.message_id,
            recipient_account_id=account_id,
            receipt_wanted=not ephemeral,
            ephemeral=ephemeral,
        )
        submission.expire_time.FromMilliseconds(expires_ms)
        try:
            await self._seal_once(submission, payload, answered, committed)
        except SessionNotFound:
            await self._start_afresh(account_id)
            try:
                await self._seal_once(submission, payload, answered, committed)
            except SessionNotFound:
                raise DevicesChanged("the recipient has no usable device") from None

    async def _seal_once(
        self,
        submission: mailbox_pb2.Submission,
        payload: content_pb2.Payload,
        answered: asyncio.Future[None] | None,
        committed: Callable[[Waiting], None],
    ) -> None:
        entry: Waiting | None = None
        try:
            async with self._state.turn():
                plaintext, envelopes = self._state.encrypt(
                    submission.recipient_account_id, payload, self._now_ms()
                )
                submission.envelopes.extend(envelopes)
                entry = Waiting(submission, plaintext, answered)
                self._state.outbox.add(entry)
        finally:
            if entry is not None and not self._state.is_broken:
                entry.is_durable = True
                committed(entry)

    async def _start_afresh(self, account_id: bytes) -> None:
        # A session that was never answered in 30 days: the pre-keys it was made from are gone.
        async with self._state.turn():
            devices = self._state.sessions.devices(account_id, self._now_ms())
            self._state.sessions.archive(account_id, devices)
        await self._introduce(account_id)

    async def _introduce(self, account_id: bytes) -> None:
        bundles = await self._relay.fetch_bundles(keys_pb2.BundleTarget(account_id=account_id))
        async with self._state.turn():
            self._start_sessions(bundles)

    def _start_sessions(self, bundles: keys_pb2.AccountBundles) -> None:
        if self._state.sessions.start(bundles, self._now_ms()):
            self._tell(IdentityChanged(bundles.account_id))
