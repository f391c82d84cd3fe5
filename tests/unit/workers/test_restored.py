"""A conversation whose row went back (I2) sends nothing with what it has, and hears the rest."""

from __future__ import annotations

import pytest
import tripleratchet as tr
from letterlockd.records.v1 import conversation_pb2, jobs_pb2
from letterlockd.workers.sealed import ConversationSeal

from tests.harness.conversations import Number, Talk, User, encrypt_step, text_payload
from tests.unit.workers.test_execute import answered, failure


def opened(made: Talk) -> conversation_pb2.ConversationRecord:
    seal = ConversationSeal(made.number.scope_key, made.conversation)
    return seal.open(made.sealed_record)


def restored(made: Talk, row: bytes) -> Talk:
    made.sealed_record, made.generation = row, made.generation + 1
    return made


def went_on(made: Talk) -> bytes:
    """A row from before two more messages that the user's devices have read."""
    row = made.sealed_record
    for n in range(2):
        for envelope in made.send(text_payload(str(n))):
            made.receive(envelope)
    return row


def test_without_a_new_generation_the_device_finds_a_used_key() -> None:
    """What the other tests rule out, so that they cannot pass by chance."""
    made = answered()
    made.sealed_record = went_on(made)
    (envelope,) = made.send(text_payload("another text under a used key"))
    with pytest.raises(tr.DuplicatedMessage):
        made.receive(envelope)


@pytest.mark.parametrize("devices", [(1,), (2, 7)])
def test_nothing_is_encrypted_before_new_sessions_are_open(devices: tuple[int, ...]) -> None:
    made = answered(*devices)
    made = restored(made, went_on(made))
    assert failure(made.step(encrypt_step(text_payload()))) == "SessionNotFound"
    made.step(made.user.establish(complete=True))
    for envelope in made.send(payload := text_payload("after")):
        assert made.receive(envelope) == payload
    for device in devices:
        assert made.step(made.envelope(device, text_payload())).HasField("decrypted")


def test_what_was_under_way_is_heard_and_sends_nothing() -> None:
    made = answered()
    row = went_on(made)
    late = [made.envelope(1, text_payload(str(n))) for n in range(3)]
    made = restored(made, row)
    for step in late:
        assert made.step(step).HasField("decrypted")
        assert failure(made.step(encrypt_step(text_payload()))) == "SessionNotFound"
    assert failure(made.step(late[0])) == "DuplicatedMessage"


def test_retired_sessions_go_when_the_device_has_moved_on() -> None:
    made = answered()
    row = went_on(made)
    late = made.envelope(1, text_payload("late"))
    made = restored(made, row)
    made.step(made.user.establish(complete=True))
    assert opened(made).devices[0].retired
    assert opened(made).generation == 1
    (envelope,) = made.send(text_payload())
    assert made.step(late).HasField("decrypted")
    made.receive(envelope)
    assert made.step(made.envelope(1, text_payload())).HasField("decrypted")
    assert not opened(made).devices[0].retired


def test_a_pre_key_message_of_a_retired_session_is_heard() -> None:
    made = Talk(Number.create(), User.create())
    made.start_from(1)
    made.step(made.envelope(1, text_payload("first")))
    row = made.sealed_record
    again = made.envelope(1, text_payload("second"))
    assert again.decrypt.type == tr.MessageType.PRE_KEY
    made = restored(made, row)
    told = made.step(again)
    assert told.HasField("decrypted")
    assert not told.decrypted.used_pre_keys
    assert failure(made.step(encrypt_step(text_payload()))) == "SessionNotFound"


def test_a_second_restore_retires_what_the_first_left() -> None:
    made = answered()
    made = restored(made, went_on(made))
    made.step(made.user.establish(complete=True))
    (envelope,) = made.send(text_payload())
    made.receive(envelope)
    made = restored(made, made.sealed_record)
    assert failure(made.step(encrypt_step(text_payload()))) == "SessionNotFound"
    assert made.step(made.envelope(1, text_payload())).HasField("decrypted")


def test_a_new_conversation_belongs_to_its_generation() -> None:
    made = Talk(Number.create(), User.create(), generation=4)
    made.step(made.user.establish())
    assert opened(made).generation == 4
    assert made.step(encrypt_step(text_payload())).HasField("encrypted")


def test_a_failed_step_still_retires() -> None:
    made = answered()
    made = restored(made, went_on(made))
    made.work(jobs_pb2.Step(establish=jobs_pb2.Establish()))
    assert opened(made).generation == 1
