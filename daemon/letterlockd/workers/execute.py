"""A job as a function: bytes of a Job in, bytes of its JobResult out, randomness given.

Opens each conversation, works its steps in order, and seals it once. What fails, fails for one
step, or for one conversation, by name. Reads no clock, no file and no network, and keeps
nothing between jobs: keys live as long as the call.
"""

from __future__ import annotations

from collections.abc import Callable

from tripleratchet import Address, CorruptRecord, IdentityKeyPair, LocalParty, Random, RatchetError

from letterlockd.model.ids import AccountId, ratchet_name
from letterlockd.records.v1 import conversation_pb2, jobs_pb2
from letterlockd.workers import steps
from letterlockd.workers.conversation import Conversation
from letterlockd.workers.keymaking import make_keys
from letterlockd.workers.sealed import (
    Unreadable,
    open_conversation,
    open_identity,
    seal_conversation,
)

__all__ = ["Report", "execute"]

Report = Callable[[BaseException], None]
"""Told of a bug's exception, to log where it is; must not log its text."""

_BUSINESS_DEVICE = 1

_Identities = dict[tuple[bytes, bytes, bytes], tuple[IdentityKeyPair, int]]


def execute(job: bytes, random: Random, report: Report) -> bytes:
    """The answer to a job. Raises `DecodeError` when the bytes are no Job."""
    asked = jobs_pb2.Job.FromString(job)
    result = jobs_pb2.JobResult()
    identities: _Identities = {}
    for task in asked.tasks:
        result.results.append(_work_apart(task, identities, random, report))
    if asked.HasField("keys"):
        result.keys.CopyFrom(make_keys(asked.keys, random))
    return result.SerializeToString()


def _work_apart(
    task: jobs_pb2.ConversationTask, identities: _Identities, random: Random, report: Report
) -> jobs_pb2.ConversationResult:
    """One conversation, whose misfortune is not the others'."""
    try:
        return _work(task, identities, random)
    except (Unreadable, CorruptRecord):
        return _all_failed(task, "CorruptRecord")
    except Exception as bug:  # dying of it would let one crafted message restart workers at will
        report(bug)
        return _all_failed(task, "InternalError")


def _work(
    task: jobs_pb2.ConversationTask, identities: _Identities, random: Random
) -> jobs_pb2.ConversationResult:
    conversation = _opened(task)
    setting = _setting(task, identities, random)
    result = jobs_pb2.ConversationResult()
    for step in task.steps:
        outcome = _try_step(conversation, step, setting)
        result.steps.append(outcome)
        if outcome.HasField("pre_keys_needed"):
            break
    if conversation.changed:
        result.sealed_record = seal_conversation(
            task.scope_key,
            task.conversation,
            conversation.to_record(task.user_account_id),
            random,
        )
    return result


def _try_step(
    conversation: Conversation, step: jobs_pb2.Step, setting: steps.Setting
) -> jobs_pb2.StepResult:
    try:
        return _do_step(conversation, step, setting)
    except steps.AtDevice as refusal:
        return _failed(type(refusal.__cause__).__name__, refusal.device)
    except steps.BadBundle:
        return _failed("BadBundle")
    except RatchetError as refusal:
        return _failed(type(refusal).__name__, step.decrypt.device_id)
    except (Unreadable, CorruptRecord):
        return _failed("CorruptRecord", step.decrypt.device_id)


def _do_step(
    conversation: Conversation, step: jobs_pb2.Step, setting: steps.Setting
) -> jobs_pb2.StepResult:
    kind = step.WhichOneof("kind")
    if kind == "encrypt":
        return steps.encrypt(conversation, step.encrypt, setting)
    if kind == "decrypt":
        return steps.decrypt(conversation, step.decrypt, setting)
    if kind == "establish":
        return steps.establish(conversation, step.establish, setting)
    if kind == "drop_devices":
        return steps.drop_devices(conversation, step.drop_devices)
    raise ValueError("step of no kind")


def _opened(task: jobs_pb2.ConversationTask) -> Conversation:
    if not task.sealed_record:
        return Conversation(conversation_pb2.ConversationRecord())
    record = open_conversation(task.scope_key, task.conversation, task.sealed_record)
    if record.user_account_id != task.user_account_id:
        raise Unreadable  # never encrypt for one account with another one's sessions
    return Conversation(record)


def _setting(
    task: jobs_pb2.ConversationTask, identities: _Identities, random: Random
) -> steps.Setting:
    account = task.business_account_id
    owner = task.key_owner_id or account
    place = (task.scope_key, owner, task.sealed_identity)
    party = identities.get(place)
    if party is None:
        party = identities[place] = open_identity(*place)
    local = Address(ratchet_name(AccountId(account)), _BUSINESS_DEVICE)
    return steps.Setting(
        local=LocalParty(local, *party),
        remote_name=ratchet_name(AccountId(task.user_account_id)),
        key_owner=owner,
        scope_key=task.scope_key,
        day_key=task.day_key,
        now_ms=task.now_ms,
        random=random,
    )


def _all_failed(task: jobs_pb2.ConversationTask, name: str) -> jobs_pb2.ConversationResult:
    return jobs_pb2.ConversationResult(steps=[_failed(name) for _ in task.steps])


def _failed(name: str, device: int = 0) -> jobs_pb2.StepResult:
    return jobs_pb2.StepResult(failure=jobs_pb2.StepFailure(name=name, device_id=device))
