"""Decryption-error messages as the front reads and writes them: unencrypted, so anybody on the way
may have written one. What it names is a claim, and is looked up before anything is done about it.

    ours     outbox record: `c0`, Unencrypted, `80`, for one device
    theirs   envelope of type 8 ──▶ Report

The ratchet key in it is the workers' affair. Knows no store. Source: docs/protocol.md, section 2.3.
"""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import DecodeError
from letterlock.content.v1.content_pb2 import Unencrypted
from letterlock.relay.v1 import mailbox_pb2

from letterlockd.model.ids import ID_BYTES, AccountId, ConversationId, MessageId
from letterlockd.records.v1.gateway_pb2 import OutboxRecord

__all__ = ["MAX_ATTEMPTS", "PLAINTEXT", "Report", "error_record", "read_report"]

MAX_ATTEMPTS = 3
"""How often a message is sent again to one device. A session is new after the first time; what
fails then is not the session's fault. More would let two broken ends write to each other longer."""

PLAINTEXT = 8
"""Type of an envelope that is not encrypted."""

_START, _END = b"\xc0", b"\x80"


class Report(NamedTuple):
    """A device says that it could not decrypt `message_id`, sent again `attempt` times. `error` is
    a serialised DecryptionErrorMessage."""

    message_id: MessageId
    attempt: int
    error: bytes


def read_report(body: bytes) -> Report | None:
    """What the body of an envelope of type 8 says; None when it breaks the contract."""
    if body[:1] != _START or body[-1:] != _END:
        return None
    try:
        said = Unencrypted.FromString(body[1:-1])
    except DecodeError:
        return None
    if len(said.message_id) != ID_BYTES or said.attempt > MAX_ATTEMPTS or not said.decryption_error:
        return None
    return Report(MessageId(said.message_id), said.attempt, said.decryption_error)


def error_record(
    report: Report,
    *,
    name: MessageId,
    conversation: ConversationId,
    account: AccountId,
    user: AccountId,
    device: int,
    expire_ms: int,
) -> OutboxRecord:
    """The row that takes a report to the user's device; `name` is the submission's."""
    said = Unencrypted(
        decryption_error=report.error, message_id=report.message_id, attempt=report.attempt
    )
    made = mailbox_pb2.Submission(
        message_id=name, sender_account_id=account, recipient_account_id=user
    )
    made.expire_time.FromMilliseconds(expire_ms)
    body = _START + said.SerializeToString() + _END
    made.envelopes.add(device_id=device, type=PLAINTEXT, body=body)
    return OutboxRecord(
        submission=made.SerializeToString(),
        conversation=conversation,
        message_id=name,
        expire_ms=expire_ms,
        only_device=device,
    )
