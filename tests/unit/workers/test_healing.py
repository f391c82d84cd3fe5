"""What workers do about messages that one end could not decrypt: which session goes."""

from __future__ import annotations

import pytest
import tripleratchet as tr
from letterlockd.records.v1 import jobs_pb2

from tests.harness.conversations import Number, Talk, User, encrypt_step, envelopes, text_payload


@pytest.fixture
def talk() -> Talk:
    """A conversation in which both have written."""
    talk = Talk(Number.create(), User.create())
    talk.start_from(1)
    talk.step(talk.envelope(1, text_payload()))
    for envelope in talk.send(text_payload()):
        talk.receive(envelope)
    talk.step(talk.envelope(1, text_payload()))
    return talk


def renew(error: bytes) -> jobs_pb2.Step:
    return jobs_pb2.Step(renew=jobs_pb2.Renew(device_id=1, decryption_error=error))


def damaged(step: jobs_pb2.Step, *, may_archive: bool) -> jobs_pb2.Step:
    step.decrypt.body = step.decrypt.body[:-1] + bytes([step.decrypt.body[-1] ^ 1])
    step.decrypt.may_archive = may_archive
    return step


def sends(talk: Talk) -> bool:
    return talk.step(encrypt_step(text_payload())).HasField("encrypted")


@pytest.mark.parametrize("may_archive", [False, True])
def test_a_message_that_fails_is_complained_of_and_its_session_archived_if_allowed(
    talk: Talk, may_archive: bool
) -> None:
    result = talk.step(damaged(talk.envelope(1, text_payload()), may_archive=may_archive))
    failure = result.failure
    assert failure.name == "InvalidMessage"
    assert tr.DecryptionError.from_bytes(failure.decryption_error).device_id == 1
    assert failure.archived == may_archive
    assert sends(talk) != may_archive
    # What is under way on the session still opens.
    assert talk.step(talk.envelope(1, text_payload())).HasField("decrypted")


def test_a_replay_is_nothing_to_complain_of(talk: Talk) -> None:
    step = talk.envelope(1, text_payload())
    talk.step(step)
    step.decrypt.may_archive = True
    failure = talk.step(step).failure
    assert failure.name == "DuplicatedMessage"
    assert not failure.decryption_error
    assert sends(talk)


def test_only_the_session_that_still_sends_under_the_key_is_renewed(talk: Talk) -> None:
    (envelope,) = talk.send(text_payload())
    sealed = tr.CiphertextMessage(envelope.type, envelope.body)
    error = tr.DecryptionError.of(sealed, timestamp_ms=1, device_id=1)
    other = tr.DecryptionError(b"\x05" + bytes(32), 1, 1)
    for harmless in (other, tr.DecryptionError(None, 1, 1)):
        assert not talk.step(renew(harmless.to_bytes())).renewed.archived
    assert sends(talk)
    assert talk.step(renew(error.to_bytes())).renewed.archived
    assert not sends(talk)
    assert not talk.step(renew(error.to_bytes())).renewed.archived  # said twice
    assert talk.step(renew(b"noise")).failure.name == "InvalidProtobufEncoding"


def test_a_new_session_for_a_report_takes_no_new_identity(talk: Talk) -> None:
    talk.user = User.create(account=talk.user.account)
    establish = talk.user.establish(same_identity=True)
    assert talk.step(establish).failure.name == "UntrustedIdentity"
    assert sends(talk)


def test_one_device_alone_is_encrypted_for() -> None:
    talk = Talk(Number.create(), User.create((1, 2)))
    talk.step(talk.user.establish())
    step = encrypt_step(text_payload())
    step.encrypt.only_device = 2
    (envelope,) = envelopes(talk.step(step))
    assert envelope.device_id == 2
    assert talk.receive(envelope)
    step.encrypt.only_device = 3
    assert talk.step(step).failure.name == "SessionNotFound"
