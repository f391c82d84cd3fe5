"""Judges a submission: what is wrong with it, or nothing. Pure; it changes nothing.

    shape ──▶ times ──▶ recipient known ──▶ device list as it is now ──▶ None, or a refusal

Limits of the mailbox, rates and repeats are not decided here: they depend on what is going on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from letterlock.relay.v1.mailbox_pb2 import DeviceEnvelope, Submission, SubmissionResult
from letterlock.v1 import errors_pb2

from letterlockd.relay.accounts import Account
from letterlockd.relay.refusals import invalid, refused, unknown_recipient
from letterlockd.relay.settings import RelaySettings

__all__ = [
    "MAX_BODY_BYTES",
    "Sender",
    "acceptance",
    "expiry_ms",
    "is_healing",
    "judge",
    "shape_fault",
]

MAX_BODY_BYTES = 65_536
"""A padded ratchet message with room to spare; a mailbox page of such is a few megabytes."""

_ID_BYTES = 16
_MESSAGE_ID_TAG = bytes((SubmissionResult.MESSAGE_ID_FIELD_NUMBER << 3 | 2, _ID_BYTES))
_SENDER_TAG = bytes((SubmissionResult.SENDER_ACCOUNT_ID_FIELD_NUMBER << 3 | 2, _ID_BYTES))
_PLAINTEXT = 8
_TYPES = frozenset((2, 3, _PLAINTEXT))
_MAX_DEVICE_ID = 127
_MAX_ATTEMPT = 3
"""A message that a device cannot decrypt so often is given up by both ends."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who submits: `mailbox` gets the receipts; `number` is told to gateways, for users only.

    Of a business its gateway keeps the retention: the relay bounds what waits for it alone.
    """

    account_id: bytes
    device_id: int
    mailbox: int
    number: str = field(default="", repr=False)
    is_business: bool = False


def shape_fault(submission: Submission, max_devices: int) -> tuple[str, str] | None:
    """The field at fault and its rule, or None."""
    if len(submission.message_id) != _ID_BYTES:
        return "message_id", f"must be {_ID_BYTES} bytes"
    if len(submission.recipient_account_id) != _ID_BYTES:
        return "recipient_account_id", f"must be {_ID_BYTES} bytes"
    if not submission.HasField("expire_time"):
        return "expire_time", "is required"
    envelopes = submission.envelopes
    if not 1 <= len(envelopes) <= max_devices:
        return "envelopes", f"1 to {max_devices}"
    healing = submission.HasField("resend")
    for envelope in envelopes:
        if fault := _envelope_fault(envelope):
            return fault
        healing = healing or envelope.type == _PLAINTEXT
    if len(envelopes) > 1 and len({envelope.device_id for envelope in envelopes}) < len(envelopes):
        return "envelopes.device_id", "every device once"
    return _healing_fault(submission) if healing else None


def is_healing(submission: Submission) -> bool:
    """Whether it is between two devices alone: a decryption-error message, or a message sent again
    because of one."""
    if submission.HasField("resend"):
        return True
    for envelope in submission.envelopes:  # noqa: SIM110 -- a generator costs twice as much
        if envelope.type == _PLAINTEXT:
            return True
    return False


def _healing_fault(submission: Submission) -> tuple[str, str] | None:
    if len(submission.envelopes) > 1:
        return "envelopes", "one, for a resend or of type 8"
    if not submission.HasField("resend"):
        return None
    if submission.envelopes[0].type == _PLAINTEXT:
        return "envelopes.type", "2 or 3 for a resend"
    if len(submission.resend.message_id) != _ID_BYTES:
        return "resend.message_id", f"must be {_ID_BYTES} bytes"
    if not 1 <= submission.resend.attempt <= _MAX_ATTEMPT:
        return "resend.attempt", f"1 to {_MAX_ATTEMPT}"
    return None


def _envelope_fault(envelope: DeviceEnvelope) -> tuple[str, str] | None:
    if not 1 <= len(envelope.body) <= MAX_BODY_BYTES:
        return "envelopes.body", f"1 to {MAX_BODY_BYTES} bytes"
    if envelope.type not in _TYPES:
        return "envelopes.type", "2, 3 or 8"
    if not 1 <= envelope.device_id <= _MAX_DEVICE_ID:
        return "envelopes.device_id", f"1 to {_MAX_DEVICE_ID}"
    return None


def judge(
    submission: Submission, recipient: Account | None, now_ms: int
) -> SubmissionResult | None:
    """The refusal as the answer to send, or None. The shape must have been checked."""
    if wanted_expiry_ms(submission) <= now_ms:
        expired = refused(errors_pb2.ERROR_REASON_EXPIRED, "expire_time has passed")
        return answer(submission, expired)
    if recipient is None or not recipient.devices:
        return answer(submission, unknown_recipient())
    return _device_fault(submission, recipient)


def answer(submission: Submission, refusal: errors_pb2.Refusal | None = None) -> SubmissionResult:
    """The answer to a submission: durable, or refused."""
    return SubmissionResult(
        message_id=submission.message_id,
        sender_account_id=submission.sender_account_id,
        refused=refusal,
    )


def acceptance(message_id: bytes, sender: bytes) -> bytes:
    """The serialised answer to a submission that is durable. The shape must have been checked;
    `sender` is its own account's id, or empty."""
    said = _MESSAGE_ID_TAG + message_id
    return said + _SENDER_TAG + sender if sender else said


def invalid_answer(submission: Submission, field_name: str, rule: str) -> SubmissionResult:
    """The answer to a submission of the wrong shape."""
    return answer(submission, invalid(field_name, rule))


def wanted_expiry_ms(submission: Submission) -> int:
    """The expiry time in milliseconds since 1970."""
    time = submission.expire_time
    return time.seconds * 1000 + time.nanos // 1_000_000


def expiry_ms(
    submission: Submission, recipient: Account, now_ms: int, settings: RelaySettings
) -> int:
    """When an accepted submission dies: as the sender said, but never past the ceiling, nor past
    the retention of a business that it is sent to. A time beyond is cut and not refused: it says
    no more than that one of two clocks is wrong, and nobody's message shall be lost for that."""
    ceiling = settings.max_ttl_ms
    if recipient.is_business:
        ceiling = min(ceiling, recipient.retention_ms)
    return min(wanted_expiry_ms(submission), now_ms + ceiling)


def _device_fault(submission: Submission, recipient: Account) -> SubmissionResult | None:
    envelopes, devices = submission.envelopes, recipient.devices
    if len(envelopes) == 1 == len(devices):  # nearly always, so at the cost of one look-up
        envelope = envelopes[0]
        device = devices.get(envelope.device_id)
        if device is not None and device.registration_id == envelope.registration_id:
            return None
    given = {envelope.device_id: envelope.registration_id for envelope in envelopes}
    healing = is_healing(submission)
    missing = [] if healing else [id_ for id_ in devices if id_ not in given]
    extra = [id_ for id_ in given if id_ not in devices]
    stale = [
        id_
        for id_, registration_id in given.items()
        if id_ in devices and devices[id_].registration_id != registration_id
    ]
    if healing and envelopes[0].type == _PLAINTEXT:
        stale = []
    if not (missing or extra or stale):
        return None
    result = answer(
        submission,
        refused(
            errors_pb2.ERROR_REASON_DEVICES_CHANGED,
            "the recipient has other devices",
            errors_pb2.REFUSAL_SCOPE_RECIPIENT,
        ),
    )
    result.missing_device_ids.extend(missing)
    result.extra_device_ids.extend(extra)
    result.stale_device_ids.extend(stale)
    return result
