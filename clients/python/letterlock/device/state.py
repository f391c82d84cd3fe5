"""Everything a registered device knows, loaded from its rows and committed to them.

Puts the rooms together: keys, sessions, outbox, inbox over one set of rows. Knows the store, no
network. After a commit that failed it is no longer usable: memory is ahead of the disk, and
sending from it would use a key twice after a restart (I1 and I2 in docs/architecture.md).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tripleratchet import CorruptRecord, Random, SessionNotFound

from letterlock.content.padding import pad
from letterlock.content.v1 import content_pb2
from letterlock.device.events import IncomingMessage
from letterlock.device.healing import Healing, Report
from letterlock.device.inbox import Inbox
from letterlock.device.keys import OwnKeys
from letterlock.device.outbox import Outbox, Waiting
from letterlock.device.rows import NUMBER, SELF, Account, Rows, new_message_id
from letterlock.device.sent import Sent
from letterlock.device.sessions import Sessions
from letterlock.device.store import Changes, DeviceStore
from letterlock.errors import DeviceError
from letterlock.relay.v1 import keys_pb2, mailbox_pb2


class DeviceState:
    """The state of one device. Change it only inside `turn()`."""

    def __init__(
        self,
        store: DeviceStore,
        stored: dict[bytes, bytes],
        *,
        random: Random,
        on_ack: Callable[[IncomingMessage], None],
    ) -> None:
        """`stored`: what the store loaded. Raises DeviceError."""
        self._store = store
        self._random = random
        self._lock = asyncio.Lock()
        self._broken = False
        self.rows = Rows()
        try:
            self.account = Account.from_bytes(stored[SELF])
            self.keys = OwnKeys(self.rows, stored)
            self.sessions = Sessions(self.account, self.keys, self.rows, stored, random)
            self.outbox = Outbox(self.rows, stored)
            self.sent = Sent(self.rows, stored)
            self.healing = Healing(self.sessions, self.outbox, random)
            self.inbox = Inbox(self.sessions, self.sent, self.healing, self.rows, stored, on_ack)
        except (CorruptRecord, ValueError, KeyError, struct.error):
            raise DeviceError("unreadable", field="store", limit="a device's state") from None
        self._numbers = {
            name[len(NUMBER) :].decode(): value
            for name, value in stored.items()
            if name.startswith(NUMBER)
        }

    @property
    def is_broken(self) -> bool:
        """Whether a commit failed."""
        return self._broken

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The right to change the state; when the block ends, what it changed is durable.

        Only then may anything of it leave. An error inside the block leaves what was done before
        it to the next commit. Raises DeviceError.
        """
        async with self._lock:
            if self._broken:
                raise DeviceError("an earlier commit failed: open the device again")
            yield
            self.sessions.note_rows()
            if self.rows:
                await self._commit(self.rows.take())

    async def _commit(self, changes: Changes) -> None:
        # A caller that gives up does not undo a commit that is on its way, so its outcome is
        # awaited all the same.
        commit = asyncio.ensure_future(self._store.commit(changes))
        try:
            await asyncio.shield(commit)
        except asyncio.CancelledError:
            await asyncio.wait([commit])
            self._broken = commit.cancelled() or commit.exception() is not None
            raise
        except BaseException:
            self._broken = True
            raise

    def account_of(self, phone_number: str) -> bytes | None:
        """The account last found under a number."""
        return self._numbers.get(phone_number)

    def remember_number(self, phone_number: str, account_id: bytes) -> None:
        """A number belongs to this account."""
        self._numbers[phone_number] = account_id
        self.rows.put(NUMBER + phone_number.encode(), account_id)

    def encrypt(
        self, account_id: bytes, payload: content_pb2.Payload, now_ms: int
    ) -> tuple[bytes, list[mailbox_pb2.DeviceEnvelope]]:
        """The padded payload, and its ciphertext for every known device of an account.

        Raises SessionNotFound, with nothing encrypted: fetch bundles first.
        """
        devices = self.sessions.devices(account_id, now_ms)
        if not devices:
            raise SessionNotFound("no session with any device of the account")
        plaintext = pad(payload)
        return plaintext, [
            self.sessions.encrypt(account_id, device, plaintext, now_ms) for device in devices
        ]

    def repaired(
        self,
        submission: mailbox_pb2.Submission,
        plaintext: bytes,
        result: mailbox_pb2.SubmissionResult,
        bundles: keys_pb2.AccountBundles | None,
        now_ms: int,
    ) -> tuple[mailbox_pb2.Submission, bool]:
        """The submission for the devices that the relay named, and whether the identity changed.

        Ciphertexts for devices that stay are used as they are: they have not been delivered.
        """
        account_id = submission.recipient_account_id
        self.sessions.forget(account_id, result.extra_device_ids)
        self.sessions.archive(account_id, result.stale_device_ids)
        changed = bundles is not None and self.sessions.start(bundles, now_ms)
        gone = {*result.extra_device_ids, *result.stale_device_ids}
        new = [device.device_id for device in bundles.devices] if bundles is not None else []
        envelopes = [
            envelope
            for envelope in submission.envelopes
            if envelope.device_id not in gone and envelope.device_id not in new
        ]
        envelopes += [
            self.sessions.encrypt(account_id, device, plaintext, now_ms) for device in new
        ]
        following = mailbox_pb2.Submission()
        following.CopyFrom(submission)
        del following.envelopes[:]
        following.envelopes.extend(envelopes)
        return following, changed

    def resend(self, report: Report, now_ms: int) -> Waiting | None:
        """Put a message into the outbox again, for the device that reported it alone; None when
        the one or the other is gone."""
        sent = self.sent.get(report.message_id, report.account_id, now_ms)
        devices = self.sessions.devices(report.account_id, now_ms)
        if sent is None or report.device_id not in devices:
            return None
        envelope = self.sessions.encrypt(
            report.account_id, report.device_id, sent.plaintext, now_ms
        )
        attempt = self.sent.resent(report.message_id, report.device_id)
        submission = mailbox_pb2.Submission(
            message_id=new_message_id(now_ms, self._random),
            recipient_account_id=report.account_id,
            envelopes=[envelope],
            receipt_wanted=True,
            resend=mailbox_pb2.Resend(message_id=report.message_id, attempt=attempt),
        )
        submission.expire_time.FromMilliseconds(sent.expire_ms)
        entry = Waiting(submission, sent.plaintext, None)
        self.outbox.add(entry)
        return entry
