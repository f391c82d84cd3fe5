"""The steps about who the user is: check a safety number, confirm an identity key.

Nothing is confirmed but the key that was checked: both steps name what they mean, so that a change
in between is refused and not confirmed by mistake. Knows no other step.
"""

from __future__ import annotations

from hmac import compare_digest

from letterlock.safety import safety_number_of
from tripleratchet import SafetyNumber

from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.conversation import Conversation

__all__ = ["SafetyNumberMismatch", "UnknownIdentity", "check_identity", "confirm_identity"]


class UnknownIdentity(Exception):
    """The user has no identity key here: there is no conversation."""


class SafetyNumberMismatch(Exception):
    """What was checked does not belong to the identity key that is known now."""


def check_identity(
    conversation: Conversation,
    step: jobs_pb2.CheckIdentity,
    task: jobs_pb2.ConversationTask,
    own_identity: bytes,
    outcome: jobs_pb2.StepResult,
) -> None:
    """Make the safety number and compare what the step brings. Raises `UnknownIdentity`,
    `SafetyNumberMismatch`, and a `FingerprintError` for what cannot have been scanned."""
    identity = conversation.identity_key
    if identity is None:
        raise UnknownIdentity
    number = safety_number_of(
        task.business_account_id, own_identity, task.user_account_id, identity
    )
    if step.WhichOneof("checked") is not None and not _is_same(number, step):
        raise SafetyNumberMismatch
    checked = outcome.identity_checked
    checked.digits = number.displayable
    checked.scannable = number.scannable
    checked.identity_key = identity
    checked.unconfirmed = conversation.identity_unconfirmed


def confirm_identity(
    conversation: Conversation, step: jobs_pb2.ConfirmIdentity, outcome: jobs_pb2.StepResult
) -> None:
    """Let messages go on. Raises `SafetyNumberMismatch` when the key is not the known one."""
    if conversation.identity_key != step.identity_key:
        raise SafetyNumberMismatch
    conversation.confirm_identity()
    outcome.identity_confirmed.SetInParent()


def _is_same(number: SafetyNumber, step: jobs_pb2.CheckIdentity) -> bool:
    if step.WhichOneof("checked") == "scanned":
        return number.compare(step.scanned)
    return compare_digest(number.displayable.encode(), step.digits.encode())
