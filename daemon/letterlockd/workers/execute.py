"""A job as a function: bytes of a Job in, bytes of its JobResult out, randomness given.

Opens each conversation, works its steps in order, and seals it once. What fails, fails for one
step, or for one conversation, by name. Reads no clock, no file and no network, and keeps
nothing between jobs: keys live as long as the call.
"""

from __future__ import annotations

from collections.abc import Callable

from tripleratchet import Address, CorruptRecord, LocalParty, Random, RatchetError

from letterlockd.model.ids import AccountId, ratchet_name
from letterlockd.records.v1 import conversation_pb2, jobs_pb2
from letterlockd.workers import identity, steps
from letterlockd.workers.conversation import Conversation
from letterlockd.workers.healing import complain, renew
from letterlockd.workers.keymaking import make_keys
from letterlockd.workers.sealed import (
    ContentSeal,
    ConversationSeal,
    Unreadable,
    open_identity,
)

__all__ = ["Report", "execute"]

Report = Callable[[BaseException], None]
"""Told of a bug's exception, to log where it is; must not log its text."""

_BUSINESS_DEVICE = 1

_Parties = dict[tuple[bytes, bytes, bytes, bytes], LocalParty]
"""Business numbers opened in this job, by everything that goes into opening one."""


def execute(job: bytes, random: Random, report: Report) -> bytes:
    """The answer to a job. Raises `DecodeError` when the bytes are no Job."""
    asked = jobs_pb2.Job.FromString(job)
    answer = jobs_pb2.JobResult()
    parties: _Parties = {}
    for task in asked.tasks:
        _work_apart(task, answer.results.add(), parties, random, report)
    if asked.HasField("keys"):
        answer.keys.CopyFrom(make_keys(asked.keys, random))
    return answer.SerializeToString()


def _work_apart(
    task: jobs_pb2.ConversationTask,
    result: jobs_pb2.ConversationResult,
    parties: _Parties,
    random: Random,
    report: Report,
) -> None:
    """One conversation, whose misfortune is not the others'."""
    try:
        _work(task, result, parties, random)
    except (Unreadable, CorruptRecord):
        _fail_all(task, result, "CorruptRecord")
    except Exception as bug:  # dying of it would let one crafted message restart workers at will
        report(bug)
        _fail_all(task, result, "InternalError")


def _work(
    task: jobs_pb2.ConversationTask,
    result: jobs_pb2.ConversationResult,
    parties: _Parties,
    random: Random,
) -> None:
    seal = ConversationSeal(task.scope_key, task.conversation)
    conversation = _opened(task, seal)
    setting = _setting(task, parties, random)
    for step in task.steps:
        outcome = result.steps.add()
        _try_step(conversation, step, task, setting, outcome)
        if outcome.HasField("pre_keys_needed"):
            break
    if conversation.changed:
        record = conversation.to_record(task.user_account_id)
        result.sealed_record = seal.seal(record, random)


def _try_step(
    conversation: Conversation,
    step: jobs_pb2.Step,
    task: jobs_pb2.ConversationTask,
    setting: steps.Setting,
    outcome: jobs_pb2.StepResult,
) -> None:
    try:
        _do_step(conversation, step, task, setting, outcome)
    except (
        steps.BadBundle,
        steps.IdentityUnconfirmed,
        identity.SafetyNumberMismatch,
        identity.UnknownIdentity,
    ) as refusal:
        outcome.failure.name = type(refusal).__name__
    except RatchetError as refusal:
        outcome.failure.name = type(refusal).__name__
        if step.HasField("decrypt"):
            complain(conversation, step.decrypt, refusal, setting.now_ms, outcome.failure)
    except (Unreadable, CorruptRecord):
        outcome.failure.name = "CorruptRecord"


def _do_step(
    conversation: Conversation,
    step: jobs_pb2.Step,
    task: jobs_pb2.ConversationTask,
    setting: steps.Setting,
    outcome: jobs_pb2.StepResult,
) -> None:
    kind = step.WhichOneof("kind")
    if kind == "encrypt":
        steps.encrypt(conversation, step.encrypt, setting, outcome)
    elif kind == "decrypt":
        steps.decrypt(conversation, step.decrypt, setting, outcome)
    elif kind == "establish":
        steps.establish(conversation, step.establish, setting, outcome)
    elif kind == "drop_devices":
        steps.drop_devices(conversation, step.drop_devices, outcome)
    elif kind == "check_identity":
        own = setting.local.identity.public
        identity.check_identity(conversation, step.check_identity, task, own, outcome)
    elif kind == "confirm_identity":
        identity.confirm_identity(conversation, step.confirm_identity, outcome)
    elif kind == "renew":
        renew(conversation, step.renew, outcome)
    else:
        raise ValueError("step of no kind")


def _opened(task: jobs_pb2.ConversationTask, seal: ConversationSeal) -> Conversation:
    if not task.sealed_record:
        return Conversation(conversation_pb2.ConversationRecord(generation=task.generation))
    record = seal.open(task.sealed_record)
    if record.user_account_id != task.user_account_id:
        raise Unreadable  # never encrypt for one account with another one's sessions
    conversation = Conversation(record)
    conversation.enter(task.generation)
    return conversation


def _setting(task: jobs_pb2.ConversationTask, parties: _Parties, random: Random) -> steps.Setting:
    account = task.business_account_id
    owner = task.key_owner_id or account
    place = (account, task.scope_key, owner, task.sealed_identity)
    local = parties.get(place)
    if local is None:
        address = Address(ratchet_name(AccountId(account)), _BUSINESS_DEVICE)
        local = parties[place] = LocalParty(address, *open_identity(*place[1:]))
    return steps.Setting(
        local=local,
        remote_name=ratchet_name(AccountId(task.user_account_id)),
        key_owner=owner,
        scope_key=task.scope_key,
        content=ContentSeal(task.day_key),
        now_ms=task.now_ms,
        unanswered_limit_ms=task.unanswered_limit_ms,
        random=random,
        hold_identity_changes=task.hold_identity_changes,
    )


def _fail_all(
    task: jobs_pb2.ConversationTask, result: jobs_pb2.ConversationResult, name: str
) -> None:
    result.Clear()
    for _ in task.steps:
        result.steps.add().failure.name = name
