"""Steps about the user's identity key: hold, check, confirm."""

from __future__ import annotations

import pytest
from letterlock.safety import safety_number_of
from letterlockd.records.v1 import jobs_pb2

from tests.harness.conversations import (
    Number,
    Talk,
    User,
    encrypt_step,
    envelopes,
    run_here,
    text_payload,
)


class Holding(Talk):
    """A conversation of a business that holds identity changes."""

    def task(self, *steps: jobs_pb2.Step) -> jobs_pb2.ConversationTask:
        task = super().task(*steps)
        task.hold_identity_changes = True
        return task


def changed(kind: type[Talk] = Holding) -> Talk:
    """A conversation whose user has come back with another identity key."""
    made = kind(Number.create(), User.create((1,)))
    made.work(made.user.establish())
    made.user = User.create((1,), made.user.account)
    (result,) = made.work(made.user.establish())
    assert result.established.identity_changed
    return made


def check(**checked: str | bytes) -> jobs_pb2.Step:
    return jobs_pb2.Step(check_identity=jobs_pb2.CheckIdentity(**checked))


def confirm(key: bytes) -> jobs_pb2.Step:
    return jobs_pb2.Step(confirm_identity=jobs_pb2.ConfirmIdentity(identity_key=key))


def name(result: jobs_pb2.StepResult) -> str:
    assert result.HasField("failure"), result.WhichOneof("outcome")
    return result.failure.name


def test_nothing_is_encrypted_to_an_unconfirmed_key() -> None:
    made = changed()
    before = made.sealed_record
    (result,) = made.work(encrypt_step(text_payload()))
    assert name(result) == "IdentityUnconfirmed"
    assert made.sealed_record == before


def test_without_the_policy_messages_go_on() -> None:
    (result,) = changed(Talk).work(encrypt_step(text_payload()))
    assert result.HasField("encrypted")


def test_a_first_identity_key_is_not_a_change() -> None:
    made = Holding(Number.create(), User.create((1,)))
    _, result = made.work(made.user.establish(), encrypt_step(text_payload()))
    assert result.HasField("encrypted")


def test_only_the_key_that_was_checked_is_encrypted_to() -> None:
    made = changed()
    step = encrypt_step(text_payload("held"))
    step.encrypt.confirmed_identity_key = b"\x05" + bytes(32)
    assert name(made.work(step)[0]) == "IdentityUnconfirmed"
    step.encrypt.confirmed_identity_key = made.user.identity_key
    (envelope,) = envelopes(made.work(step)[0])
    assert made.receive(envelope) == step.encrypt.payload
    assert name(made.work(encrypt_step(text_payload()))[0]) == "IdentityUnconfirmed"


def test_only_the_known_key_is_confirmed() -> None:
    made = changed()
    assert name(made.work(confirm(b"\x05" + bytes(32)))[0]) == "SafetyNumberMismatch"
    _, result = made.work(confirm(made.user.identity_key), encrypt_step(text_payload()))
    assert result.HasField("encrypted")
    before = made.sealed_record
    assert made.work(confirm(made.user.identity_key))[0].HasField("identity_confirmed")
    assert made.sealed_record == before


def test_the_safety_number_is_what_the_user_sees() -> None:
    made = changed()
    theirs = safety_number_of(
        made.user.account, made.user.identity_key, made.number.account, made.number.identity_key
    )
    ours = made.work(check())[0].identity_checked
    assert ours.digits == theirs.displayable
    assert theirs.compare(ours.scannable)
    assert (ours.identity_key, ours.unconfirmed) == (made.user.identity_key, True)
    for checked in (check(digits=theirs.displayable), check(scanned=theirs.scannable)):
        assert made.work(checked)[0].HasField("identity_checked")


@pytest.mark.parametrize(
    ("checked", "failure"),
    [
        (check(digits="0" * 60), "SafetyNumberMismatch"),
        (check(digits=""), "SafetyNumberMismatch"),
        (check(scanned=b"\xff"), "FingerprintParsingError"),
        (check(scanned=b""), "FingerprintParsingError"),
    ],
)
def test_another_safety_number_is_refused(checked: jobs_pb2.Step, failure: str) -> None:
    made = changed()
    assert name(made.work(checked)[0]) == failure


def test_our_own_code_is_not_the_users() -> None:
    made = changed()
    ours = made.work(check())[0].identity_checked
    assert name(made.work(check(scanned=ours.scannable))[0]) == "SafetyNumberMismatch"
    future = b"\x08\x03" + ours.scannable[2:]
    assert name(made.work(check(scanned=future))[0]) == "FingerprintVersionMismatch"


def test_nobody_is_known_before_the_first_contact() -> None:
    made = Holding(Number.create(), User.create((1,)))
    (result,) = run_here(jobs_pb2.Job(tasks=[made.task(check())])).results
    assert name(result.steps[0]) == "UnknownIdentity"
    assert not result.sealed_record


def test_a_message_under_an_unconfirmed_key_is_marked() -> None:
    made = changed()
    made.start_from(1)
    first = made.step(made.envelope(1, text_payload())).decrypted
    assert (first.identity_changed, first.identity_unconfirmed) == (False, True)
    made.work(confirm(made.user.identity_key))
    then = made.step(made.envelope(1, text_payload())).decrypted
    assert not then.identity_unconfirmed
