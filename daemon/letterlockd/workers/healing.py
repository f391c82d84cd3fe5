"""What a worker does about a message that one end could not decrypt.

    our decryption failed   ──▶ a decryption error for the device; our session archived, if it is
                                the one that failed
    theirs failed           ──▶ our session archived, if it still sends what they cannot decrypt

Old news archives nothing: the ratchet key has moved on by then, or the session has. Knows no
sealed record, no process, no clock.
"""

from __future__ import annotations

from tripleratchet import CiphertextMessage, DecryptionError, DuplicatedMessage, RatchetError

from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.conversation import Conversation

__all__ = ["complain", "renew"]


def complain(
    conversation: Conversation,
    step: jobs_pb2.Decrypt,
    refusal: RatchetError,
    now_ms: int,
    failure: jobs_pb2.StepFailure,
) -> None:
    """Say in `failure` what the device is to be told. A replay is nothing to complain of."""
    if isinstance(refusal, DuplicatedMessage):
        return
    message = CiphertextMessage(step.type, step.body)
    error = DecryptionError.of(message, timestamp_ms=now_ms, device_id=step.device_id)
    failure.decryption_error = error.to_bytes()
    sessions = conversation.sessions(step.device_id)
    if not step.may_archive or error.ratchet_key is None or sessions is None:
        return
    if sessions.receives_under(error.ratchet_key):
        conversation.put(step.device_id, sessions.archive())
        failure.archived = True


def renew(conversation: Conversation, step: jobs_pb2.Renew, outcome: jobs_pb2.StepResult) -> None:
    """Archive the session that a device cannot decrypt. Raises an EncodingError."""
    key = DecryptionError.from_bytes(step.decryption_error).ratchet_key
    sessions = conversation.sessions(step.device_id)
    outcome.renewed.archived = (
        key is not None and sessions is not None and sessions.sends_under(key)
    )
    if outcome.renewed.archived and sessions is not None:
        conversation.put(step.device_id, sessions.archive())
