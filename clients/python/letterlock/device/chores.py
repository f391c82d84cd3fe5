"""What a device does beside sending and receiving: mends submissions for changed device lists,
sends again what could not be decrypted, and keeps its pre-keys in the directory topped up and, the
signed ones, young.

Runs as one task beside the mailbox stream. Everything it lets out was committed first.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from tripleratchet import IdentityKeyPair, Random

from letterlock.device.events import DeviceEvent, IdentityChanged, SendRefused
from letterlock.device.healing import MAX_ATTEMPTS, Report
from letterlock.device.keys import make_keys
from letterlock.device.mailbox import Mailbox
from letterlock.device.outbox import Waiting
from letterlock.device.relay import Relay
from letterlock.device.state import DeviceState
from letterlock.errors import (
    BadPreKeys,
    Busy,
    DeviceError,
    DevicesChanged,
    LetterlockError,
    NotDecrypted,
    Unavailable,
)
from letterlock.relay.v1 import keys_pb2, mailbox_pb2

MAX_REPAIRS = 3
"""How often one message is encrypted again for changed devices; a relay that finds fault with
every list would otherwise drain pre-keys for ever."""

LOOK_SECONDS = 6 * 3600.0
"""How often a device that stays connected looks whether its signed pre-keys are old."""

_log = logging.getLogger("letterlock")


class Chores:
    """The chores of one connected device."""

    def __init__(
        self,
        state: DeviceState,
        relay: Relay,
        *,
        one_time_pre_keys: int,
        settle: Callable[[bytes, LetterlockError | None], None],
        tell: Callable[[DeviceEvent], None],
        random: Random,
        now_ms: Callable[[], int],
    ) -> None:
        """`settle` ends a submission, `tell` hands an event to the application."""
        self._state = state
        self._relay = relay
        self._wanted = one_time_pre_keys
        self._settle = settle
        self._tell = tell
        self._random = random
        self._now_ms = now_ms
        self._repairs: deque[mailbox_pb2.SubmissionResult] = deque()  # at most the outbox
        self._reports: deque[tuple[Report, int]] = deque()  # at most the relay's window
        self._checked_at_uses: int | None = None
        self._wake = asyncio.Event()

    def repair(self, result: mailbox_pb2.SubmissionResult) -> None:
        """The relay says DEVICES_CHANGED to a submission."""
        self._repairs.append(result)
        self._wake.set()

    def reported(self, report: Report, item_id: int) -> None:
        """A device could not decrypt a message; the item stays at the relay until that is done."""
        self._reports.append((report, item_id))
        self._wake.set()

    def keys_used(self) -> None:
        """First messages came: look whether the directory runs low."""
        if self._is_top_up_due:
            self._wake.set()

    async def run(self, mailbox: Mailbox) -> None:
        """Do chores as they come, until cancelled."""
        while True:
            self._wake.clear()
            while self._repairs:
                await self._mend(mailbox, self._repairs.popleft())
            while self._reports:
                await self._heal(mailbox, *self._reports.popleft())
            if self._is_top_up_due or self._is_rotation_due:
                await self._keep_keys()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue

    @property
    def _is_top_up_due(self) -> bool:
        if self._wanted == 0:
            return False
        if self._checked_at_uses is None:
            return True
        return self._state.keys.uses - self._checked_at_uses >= max(1, self._wanted // 4)

    async def _mend(self, mailbox: Mailbox, result: mailbox_pb2.SubmissionResult) -> None:
        entry = self._state.outbox.get(result.message_id)
        if entry is None:
            return
        if entry.is_healing and result.extra_device_ids:
            self._settle(result.message_id, None)  # the device is gone: nobody is to be told
            return
        try:
            changed = await self._encrypt_again(entry, result)
        except LetterlockError as error:
            self._settle(result.message_id, error)
            return
        if changed:
            self._tell(IdentityChanged(entry.submission.recipient_account_id))
        mailbox.submit(entry.submission)

    async def _encrypt_again(self, entry: Waiting, result: mailbox_pb2.SubmissionResult) -> bool:
        entry.repairs += 1
        if entry.repairs > MAX_REPAIRS:
            raise DevicesChanged("the recipient's devices keep changing")
        account_id = entry.submission.recipient_account_id
        wanted = [*result.missing_device_ids, *result.stale_device_ids]
        bundles = None
        if wanted:
            target = keys_pb2.BundleTarget(account_id=account_id, device_ids=wanted)
            bundles = await self._relay.fetch_bundles(target)
            if entry.is_healing:
                _check_identity(self._state, bundles)
        async with self._state.turn():
            submission, changed = self._state.repaired(
                entry.submission, entry.plaintext, result, bundles, self._now_ms()
            )
            if not submission.envelopes:
                raise DevicesChanged("the recipient has no device left")
            self._state.outbox.replace(entry, submission)
        entry.is_durable = True
        return changed

    async def _heal(self, mailbox: Mailbox, report: Report, item_id: int) -> None:
        """Act on a report. What cannot be done now stays at the relay, for the next stream."""
        entry = None
        try:
            entry = await self._resend(report)
        except LetterlockError as error:
            _log.warning("a message was not sent again", extra={"reason": error.reason})
            if isinstance(error, Busy | Unavailable | DeviceError):
                return
        if entry is not None:
            entry.is_durable = True
            mailbox.submit(entry.submission)
        mailbox.acknowledge([item_id])

    async def _resend(self, report: Report) -> Waiting | None:
        state, account_id, device = self._state, report.account_id, report.device_id
        sent = state.sent.get(report.message_id, account_id, self._now_ms())
        attempts = 0 if sent is None else sent.attempts.get(device, 0)
        if report.attempt < attempts:
            return None  # it was sent again since
        async with state.turn():
            state.healing.renew(report, self._now_ms())
        if sent is None or report.attempt > attempts:
            return None
        if attempts >= MAX_ATTEMPTS:
            async with state.turn():
                state.sent.forget(report.message_id)
            lost = NotDecrypted("the recipient could not decrypt it")
            self._tell(SendRefused(report.message_id, lost))
            return None
        if not state.outbox.may_heal:
            raise Busy("too many messages are to be sent again", reason="QUEUE_FULL")
        if device not in state.sessions.devices(account_id, self._now_ms()):
            await self._introduce(report)
        async with state.turn():
            return state.resend(report, self._now_ms())

    async def _introduce(self, report: Report) -> None:
        target = keys_pb2.BundleTarget(account_id=report.account_id, device_ids=[report.device_id])
        bundles = await self._relay.fetch_bundles(target)
        _check_identity(self._state, bundles)
        async with self._state.turn():
            self._state.sessions.start(bundles, self._now_ms())

    @property
    def _is_rotation_due(self) -> bool:
        keys = self._state.keys
        return keys.unpublished is not None or keys.signed_is_old(self._now_ms())

    async def _keep_keys(self) -> None:
        self._checked_at_uses = self._state.keys.uses
        try:
            await self._publish_again()
            await self._upload_missing()
        except LetterlockError as error:
            # First messages fall back to the last-resort key meanwhile; the next use tries again.
            self._checked_at_uses = None
            _log.warning("pre-keys were not topped up", extra={"reason": error.reason})

    async def _publish_again(self) -> None:
        """What a crash or a relay that was away left unpublished."""
        if self._state.keys.unpublished is not None:
            await self._publish(self._state.keys.unpublished)

    async def _upload_missing(self) -> None:
        state, now_ms = self._state, self._now_ms()
        count = await self._relay.pre_key_count()
        ec = self._missing(count.one_time_pre_keys)
        kyber = self._missing(count.one_time_kyber_pre_keys)
        signed = state.keys.signed_is_old(now_ms)
        if ec or kyber or signed:
            identity = IdentityKeyPair.from_private(state.account.identity_private)
            first_id = state.keys.next_id
            keys = await asyncio.to_thread(
                make_keys, identity, first_id, self._random, signed=signed, ec=ec, kyber=kyber
            )
            async with state.turn():
                state.keys.keep(keys, now_ms)
            await self._publish(keys.to_upload())
        async with state.turn():
            state.keys.drop_outlived(now_ms)

    async def _publish(self, upload: keys_pb2.PreKeyUpload) -> None:
        await self._relay.upload_pre_keys(upload)
        if upload.HasField("signed_pre_key"):
            async with self._state.turn():
                self._state.keys.published(self._now_ms())

    def _missing(self, left: int) -> int:
        return self._wanted - left if left <= self._wanted // 2 else 0


def _check_identity(state: DeviceState, bundles: keys_pb2.AccountBundles) -> None:
    """A report that the relay forged must not get it a message for a key of its own."""
    if bundles.identity_key != state.sessions.identity(bundles.account_id):
        raise BadPreKeys("another identity key than the known one")
