"""What a device does about a message that one end could not decrypt.

    ours failed     ──▶ report to the sender, our session archived ──▶ it comes again
    theirs failed   ──▶ report from them: our session archived, the message again on a new one

A report is a decryption-error message: unencrypted, so it is a claim. It can cause three more
ciphertexts of a message that is under way, for the identity key known before, and a bounded number
of new sessions; it is never answered by a report. docs/protocol.md, section 2.3. Knows no network.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from google.protobuf.message import DecodeError
from tripleratchet import (
    CiphertextMessage,
    DecryptionError,
    MessageType,
    Random,
    RatchetError,
    plaintext_content,
    read_plaintext_content,
)

from letterlock.content.v1.content_pb2 import Unencrypted
from letterlock.device.outbox import Outbox, Waiting
from letterlock.device.rows import new_message_id
from letterlock.device.sessions import Sessions
from letterlock.relay.v1 import mailbox_pb2

ID_BYTES = 16
PLAINTEXT = 8
"""Type of an envelope that is not encrypted."""

MAX_ATTEMPTS = 3
"""How often a message is sent again to one device."""

MAX_RENEWALS = 6
"""Sessions with one account that are given up within RENEWAL_MS: each costs a one-time pre-key."""
RENEWAL_MS = 3_600_000
_MAX_ACCOUNTS = 1_000

_REPORT_LIFE_MS = 7 * 24 * 3_600_000
_SHORTEST_LIFE_MS = 60_000


class Report(NamedTuple):
    """A device says that it could not decrypt a message, sent again `attempt` times."""

    account_id: bytes
    device_id: int
    message_id: bytes
    attempt: int
    ratchet_key: bytes | None


class Healing:
    """Both halves, as far as they are a matter of state. Call inside a turn."""

    def __init__(self, sessions: Sessions, outbox: Outbox, random: Random) -> None:
        self._sessions = sessions
        self._outbox = outbox
        self._random = random
        self._renewed: OrderedDict[bytes, list[int]] = OrderedDict()

    def complain(self, envelope: mailbox_pb2.Envelope, now_ms: int) -> Waiting | None:
        """Report an envelope that does not open. None when it is given up, or too much waits."""
        attempt = envelope.resend.attempt
        if attempt > MAX_ATTEMPTS or not self._outbox.may_heal or not _is_message(envelope):
            return None
        account_id, device = envelope.sender_account_id, envelope.sender_device_id
        message = CiphertextMessage(envelope.type, envelope.body)
        failed_ms = envelope.accept_time.ToMilliseconds()
        error = DecryptionError.of(message, timestamp_ms=max(0, failed_ms), device_id=device)
        if error.ratchet_key is not None and self._may_renew(account_id, now_ms):
            renewed = self._sessions.archive_receiving(account_id, device, error.ratchet_key)
            self._count(account_id, now_ms, renewed)
        said = Unencrypted(
            decryption_error=error.to_bytes(),
            message_id=envelope.resend.message_id or envelope.message_id,
            attempt=attempt,
        )
        submission = mailbox_pb2.Submission(
            message_id=new_message_id(now_ms, self._random), recipient_account_id=account_id
        )
        dies_ms = min(envelope.expire_time.ToMilliseconds(), now_ms + _REPORT_LIFE_MS)
        submission.expire_time.FromMilliseconds(max(dies_ms, now_ms + _SHORTEST_LIFE_MS))
        body = plaintext_content(said.SerializeToString())
        submission.envelopes.add(device_id=device, type=PLAINTEXT, body=body)
        entry = Waiting(submission, b"", None)
        self._outbox.add(entry)
        return entry

    def renew(self, report: Report, now_ms: int) -> None:
        """Archive the session that still sends what the device could not decrypt."""
        if report.ratchet_key is not None and self._may_renew(report.account_id, now_ms):
            renewed = self._sessions.archive_sending(
                report.account_id, report.device_id, report.ratchet_key
            )
            self._count(report.account_id, now_ms, renewed)

    def _may_renew(self, account_id: bytes, now_ms: int) -> bool:
        times = self._renewed.get(account_id, [])
        return sum(time > now_ms - RENEWAL_MS for time in times) < MAX_RENEWALS

    def _count(self, account_id: bytes, now_ms: int, renewed: bool) -> None:
        if renewed:
            times = self._renewed.pop(account_id, [])
            self._renewed[account_id] = [*times[1 - MAX_RENEWALS :], now_ms]
            if len(self._renewed) > _MAX_ACCOUNTS:
                self._renewed.popitem(last=False)


def _is_message(envelope: mailbox_pb2.Envelope) -> bool:
    return envelope.type in tuple(MessageType) and len(envelope.message_id) == ID_BYTES


def read_report(envelope: mailbox_pb2.Envelope) -> Report | None:
    """What an envelope of type 8 says; None when it breaks the contract."""
    try:
        said = Unencrypted.FromString(read_plaintext_content(envelope.body))
        error = DecryptionError.from_bytes(said.decryption_error)
    except (DecodeError, RatchetError):
        return None
    if len(said.message_id) != ID_BYTES or said.attempt > MAX_ATTEMPTS:
        return None
    return Report(
        envelope.sender_account_id,
        envelope.sender_device_id,
        said.message_id,
        said.attempt,
        error.ratchet_key,
    )
