"""Jobs against a second party of the ratchet: the user's devices."""

import os

import pytest
import tripleratchet as tr
from letterlock.content.v1 import content_pb2
from letterlock.relay.v1 import keys_pb2
from letterlockd.records.v1 import conversation_pb2, jobs_pb2
from letterlockd.workers.execute import execute
from letterlockd.workers.sealed import ContentSeal, ConversationSeal
from tripleratchet.post_quantum import DECLINED

from tests.harness.conversations import (
    Number,
    Talk,
    User,
    decrypt_step,
    encrypt_step,
    envelopes,
    run_here,
    text_payload,
)

MONTH_MS = 30 * 24 * 3600 * 1000


def talk(*devices: int) -> Talk:
    """A conversation with open sessions to these devices (default: 1)."""
    made = Talk(Number.create(), User.create(devices or (1,)))
    (result,) = made.work(made.user.establish())
    assert result.HasField("established")
    return made


def answered(*devices: int) -> Talk:
    """The same, after both sides have spoken on each device."""
    made = talk(*devices)
    for envelope in made.send(text_payload()):
        made.receive(envelope)
        made.step(made.envelope(envelope.device_id, text_payload()))
    return made


def failure(result: jobs_pb2.StepResult) -> str:
    assert result.HasField("failure"), result.WhichOneof("outcome")
    return result.failure.name


def opened(made: Talk) -> conversation_pb2.ConversationRecord:
    seal = ConversationSeal(made.number.scope_key, made.conversation)
    return seal.open(made.sealed_record)


def content_of(made: Talk, sealed: bytes, message_id: bytes) -> bytes:
    return ContentSeal(made.number.day_key).open(sealed, made.context(message_id))


@pytest.mark.parametrize("devices", [(1,), (2, 7)])
def test_messages_go_both_ways(devices: tuple[int, ...]) -> None:
    made = talk(*devices)
    payload = text_payload("out")
    sent = made.send(payload)
    assert [(e.device_id, e.registration_id, e.type) for e in sent] == [
        (device, 100 + device, tr.MessageType.PRE_KEY) for device in devices
    ]
    assert [made.receive(envelope) for envelope in sent] == [payload] * len(devices)
    for device in devices:
        inbound = text_payload("in")
        told = made.step(made.envelope(device, inbound)).decrypted
        assert content_of(made, told.sealed_payload, bytes(16)) == inbound
        assert told.message_id == content_pb2.Payload.FromString(inbound).message_id
        assert not told.identity_changed
    assert {e.type for e in made.send(payload)} == {tr.MessageType.SIGNAL}


def test_steps_of_a_task_build_on_each_other_and_are_sealed_once() -> None:
    made = Talk(Number.create(), User.create((1,)))
    payloads = [text_payload(str(n)) for n in range(5)]
    results = made.work(made.user.establish(), *map(encrypt_step, payloads))
    received = [made.receive(envelopes(result)[0]) for result in results[1:]]
    assert received == payloads


def test_conversations_of_a_job_stay_apart() -> None:
    good, broken = talk(), talk()
    task = broken.task(encrypt_step(text_payload()))
    task.sealed_record = good.sealed_record  # a row in another row's place
    job = jobs_pb2.Job(tasks=[task, good.task(encrypt_step(text_payload()))])
    first, second = run_here(job).results
    assert failure(first.steps[0]) == "CorruptRecord"
    assert not first.sealed_record
    assert second.steps[0].HasField("encrypted")


def test_a_payload_sealed_for_repair_is_encrypted_again() -> None:
    made = talk()
    payload, context = text_payload(), made.context(b"m" * 16)
    (result,) = made.work(encrypt_step(payload, context))
    sealed = result.encrypted.sealed_payload
    assert ContentSeal(made.number.day_key).open(sealed, context) == payload
    again = jobs_pb2.Encrypt(sealed_payload=sealed, content_context=context)
    (result,) = made.work(jobs_pb2.Step(encrypt=again))
    assert made.receive(envelopes(result)[0]) == payload
    assert not result.encrypted.sealed_payload


def test_a_payload_without_a_context_is_not_sealed() -> None:
    (result,) = talk().work(encrypt_step(text_payload()))
    assert not result.encrypted.sealed_payload


def test_a_sealed_payload_under_another_context_does_not_open() -> None:
    made = talk()
    (result,) = made.work(encrypt_step(text_payload(), made.context(b"m" * 16)))
    other = jobs_pb2.Encrypt(
        sealed_payload=result.encrypted.sealed_payload, content_context=made.context(b"n" * 16)
    )
    (result,) = made.work(jobs_pb2.Step(encrypt=other))
    assert failure(result) == "CorruptRecord"


def test_without_sessions_there_is_nothing_to_encrypt_with() -> None:
    made = Talk(Number.create(), User.create())
    (result,) = made.work(encrypt_step(text_payload()))
    assert failure(result) == "SessionNotFound"
    assert not made.sealed_record


def test_a_device_that_never_answered_is_left_out_after_30_days() -> None:
    made = talk(1, 2)
    for envelope in made.send(text_payload()):
        made.receive(envelope)
    made.step(made.envelope(2, text_payload()))
    made.now_ms += MONTH_MS + 1000
    assert [envelope.device_id for envelope in made.send(text_payload())] == [2]


def test_a_session_that_is_not_answered_any_more_is_left_out_until_a_new_one_is_opened() -> None:
    made = answered()
    made.now_ms += MONTH_MS  # nothing was sent since the answer: the time does not run
    made.send(text_payload())
    first_ms = made.now_ms
    made.now_ms += MONTH_MS
    (sent,) = made.send(text_payload())
    made.receive(sent)
    made.now_ms += 1
    assert failure(made.work(encrypt_step(text_payload()))[0]) == "SessionNotFound"
    assert opened(made).devices[0].unanswered_since_ms == first_ms
    made.work(made.user.establish())
    (sent,) = made.send(text_payload())
    assert sent.type == tr.MessageType.PRE_KEY
    made.receive(sent)


def test_an_answer_and_a_clock_that_goes_back_start_the_time_of_a_session_again() -> None:
    made = answered()
    made.send(text_payload())
    made.now_ms += MONTH_MS
    (sent,) = made.send(text_payload())
    made.receive(sent)
    made.step(made.envelope(1, text_payload()))
    assert opened(made).devices[0].unanswered_since_ms == 0
    made.now_ms += MONTH_MS
    made.send(text_payload())
    made.now_ms -= 12 * MONTH_MS
    made.send(text_payload())
    assert opened(made).devices[0].unanswered_since_ms == made.now_ms


def test_a_session_without_the_required_post_quantum_ratchet_is_left_out() -> None:
    made = answered(1, 2)
    record = opened(made)
    sessions = tr.SessionRecord.from_bytes(record.devices[0].record)
    session = sessions.current_session()
    assert session is not None
    old = sessions.with_current(session._replace(post_quantum=DECLINED))
    record.devices[0].record = old.to_bytes()
    seal = ConversationSeal(made.number.scope_key, made.conversation)
    made.sealed_record = seal.seal(record, os.urandom)
    assert [envelope.device_id for envelope in made.send(text_payload())] == [2]
    made.work(made.user.establish())
    assert [envelope.device_id for envelope in made.send(text_payload())] == [1, 2]


# First messages from the user


@pytest.mark.parametrize("kyber", [None, 1])
@pytest.mark.parametrize("one_time", [None, 1])
def test_a_first_message_asks_for_its_pre_keys_and_uses_them_up(
    one_time: int | None, kyber: int | None
) -> None:
    number = Number.create(kyber=1)
    made = Talk(number, User.create((3,)))
    made.start_from(3, number.bundle(one_time, kyber))
    payload = text_payload()
    step = made.envelope(3, payload)
    (asked,) = made.work(step)
    assert not made.sealed_record
    step.decrypt.pre_keys.extend(number.find(asked.pre_keys_needed.keys))
    (result,) = made.work(step)
    told = result.decrypted
    assert content_of(made, told.sealed_payload, bytes(16)) == payload
    assert not told.identity_changed
    used = {(key.kind, key.key_id) for key in told.used_pre_keys}
    expected = {(jobs_pb2.PRE_KEY_KIND_ONE_TIME, one_time)} if one_time else set()
    if kyber:
        expected |= {(jobs_pb2.PRE_KEY_KIND_KYBER_ONE_TIME, kyber)}
    assert used == expected
    assert len(told.last_resort_use) == (0 if kyber else 32)
    assert {made.receive(envelope) for envelope in made.send(payload)} == {payload}


def test_a_replayed_first_message_names_the_same_use_of_the_last_resort_key() -> None:
    made = Talk(Number.create(), User.create())
    made.start_from(1, made.number.bundle(None))
    step = made.envelope(1, text_payload())
    first = made.step(step).decrypted
    made.sealed_record = b""  # the conversation was lost
    second = made.step(step).decrypted
    assert first.last_resort_use == second.last_resort_use
    made.start_from(1, made.number.bundle(None))
    third = made.step(made.envelope(1, text_payload())).decrypted
    assert third.last_resort_use not in {b"", first.last_resort_use}


def test_steps_after_one_that_asks_for_pre_keys_are_not_tried_and_those_before_count() -> None:
    made = talk(1, 2)
    made.start_from(2)
    results = made.work(
        encrypt_step(text_payload()),
        made.envelope(2, text_payload()),
        encrypt_step(text_payload()),
    )
    assert [result.WhichOneof("outcome") for result in results] == ["encrypted", "pre_keys_needed"]
    (later,) = made.work(encrypt_step(text_payload()))
    first, second = envelopes(results[0])[0], envelopes(later)[0]
    made.receive(first)
    made.receive(second)  # another key than the first: the state had moved


def test_a_pre_key_that_is_gone_fails_the_step_by_its_name() -> None:
    for kind, name in (
        (jobs_pb2.PRE_KEY_KIND_SIGNED, "InvalidSignedPreKeyId"),
        (jobs_pb2.PRE_KEY_KIND_KYBER_LAST_RESORT, "InvalidKyberPreKeyId"),
        (jobs_pb2.PRE_KEY_KIND_ONE_TIME, "InvalidPreKeyId"),
    ):
        made = Talk(Number.create(), User.create())
        made.start_from(1)
        gone = [place for place in made.number.pre_keys if place[0] == kind]
        for place in gone:
            del made.number.pre_keys[place]
        assert failure(made.step(made.envelope(1, text_payload()))) == name
        assert not made.sealed_record


def test_one_time_keys_work_once_even_within_a_task() -> None:
    made = Talk(Number.create(), User.create((1, 2)))
    steps = []
    for device in (1, 2):  # a relay that hands out a key twice
        made.start_from(device, made.number.bundle(1))
        steps.append(made.envelope(device, text_payload()))
        steps[-1].decrypt.pre_keys.extend(made.number.pre_keys.values())
    first, second = made.work(*steps)
    assert first.HasField("decrypted")
    assert failure(second) == "InvalidPreKeyId"


def test_a_pre_key_in_another_keys_place_does_not_open() -> None:
    made = Talk(Number.create(), User.create())
    made.start_from(1)
    kind = jobs_pb2.PRE_KEY_KIND_ONE_TIME
    made.number.pre_keys[kind, 1].sealed = made.number.pre_keys[kind, 2].sealed
    assert failure(made.step(made.envelope(1, text_payload()))) == "CorruptRecord"


# What bad input yields


def test_a_repeat_is_told_apart_and_changes_nothing() -> None:
    made = answered()
    step = made.envelope(1, text_payload())
    made.step(step)
    before = made.sealed_record
    assert failure(made.step(step)) == "DuplicatedMessage"
    assert made.sealed_record == before


def test_ciphertext_from_an_unknown_device_finds_no_session() -> None:
    made = answered()
    step = made.envelope(1, text_payload())
    step.decrypt.device_id = 9
    assert failure(made.step(step)) == "SessionNotFound"


@pytest.mark.parametrize(
    ("device", "kind", "body", "name"),
    [
        (1, 2, b"", "CiphertextMessageTooShort"),
        (1, 3, b"", "CiphertextMessageTooShort"),
        (1, 2, b"\x24" + bytes(20), "LegacyCiphertextVersion"),
        (1, 2, b"\x54" + bytes(20), "UnrecognizedCiphertextVersion"),
        (1, 2, b"\x44\xff" + bytes(20), "InvalidProtobufEncoding"),
        (1, 3, b"\x44\xff" + bytes(20), "InvalidProtobufEncoding"),
        (1, 7, b"\x44" + bytes(20), "InvalidMessage"),
        (0, 2, b"\x44" + bytes(20), "InvalidAddress"),
        (128, 2, b"\x44" + bytes(20), "InvalidAddress"),
    ],
)
def test_damaged_ciphertext_fails_by_name(device: int, kind: int, body: bytes, name: str) -> None:
    made = answered()
    before = made.sealed_record
    (result,) = made.work(decrypt_step(device, kind, body, b""))
    assert failure(result) == name
    assert made.sealed_record == before


def test_a_flipped_bit_is_an_invalid_message_and_the_next_one_still_opens() -> None:
    made = answered()
    good, bad = made.envelope(1, text_payload("1")), made.envelope(1, text_payload("2"))
    body = bytearray(bad.decrypt.body)
    body[-1] ^= 1
    bad.decrypt.body = bytes(body)
    results = made.work(bad, good)
    assert failure(results[0]) == "InvalidMessage"
    assert results[1].HasField("decrypted")


def test_a_bad_payload_fails_but_its_key_is_used() -> None:
    made = Talk(Number.create(), User.create())
    made.start_from(1)
    step = made.envelope(1, b"no payload")
    result = made.step(step)
    assert failure(result) == "BadPayload"
    assert [key.key_id for key in result.failure.opened.used_pre_keys] == [1]
    assert not result.failure.opened.sealed_payload
    assert failure(made.step(step)) == "DuplicatedMessage"


def test_receipts_and_typing_signs_are_told_and_not_sealed() -> None:
    made = answered()
    read = content_pb2.Content(read_receipt=content_pb2.ReadReceipt(message_ids=[b"r" * 16]))
    typing = content_pb2.Content(typing=content_pb2.Typing(started=True))
    told = []
    for content in (read, typing):
        payload = content_pb2.Payload(message_id=bytes(16), content=content)
        told.append(made.step(made.envelope(1, payload.SerializeToString())).decrypted)
    assert list(told[0].read_message_ids) == [b"r" * 16]
    assert told[1].typing_started
    assert not told[0].sealed_payload + told[1].sealed_payload


def test_a_wrong_scope_key_opens_nothing() -> None:
    made = answered()
    made.number.scope_key = os.urandom(32)
    (result,) = made.work(encrypt_step(text_payload()))
    assert failure(result) == "CorruptRecord"


def test_a_row_of_another_account_is_not_used() -> None:
    made = answered()
    made.user.account = os.urandom(16)
    (result,) = made.work(encrypt_step(text_payload()))
    assert failure(result) == "CorruptRecord"


def test_a_session_record_that_does_not_parse_fails_its_step() -> None:
    made = answered(1, 2)
    record = opened(made)
    record.devices[0].record = b"\x01broken"
    seal = ConversationSeal(made.number.scope_key, made.conversation)
    made.sealed_record = seal.seal(record, os.urandom)
    results = made.work(encrypt_step(text_payload()), made.envelope(2, text_payload()))
    assert failure(results[0]) == "CorruptRecord"
    assert results[1].HasField("decrypted")


def test_a_bug_costs_one_conversation_and_is_reported() -> None:
    first, second = talk(), talk()
    job = jobs_pb2.Job(tasks=[first.task(jobs_pb2.Step()), second.task(jobs_pb2.Step())])
    job.tasks[1].steps[0].CopyFrom(encrypt_step(text_payload()))
    reported: list[BaseException] = []
    result = execute(job.SerializeToString(), os.urandom, reported.append)
    results = jobs_pb2.JobResult.FromString(result).results
    assert failure(results[0].steps[0]) == "InternalError"
    assert results[1].steps[0].HasField("encrypted")
    assert [type(error) for error in reported] == [ValueError]


# Devices and identities


def bundle(made: Talk, device: int = 1) -> keys_pb2.DeviceBundle:
    return keys_pb2.DeviceBundle.FromString(made.user.bundle(device))


def establish_with(made: Talk, *bundles: keys_pb2.DeviceBundle) -> jobs_pb2.Step:
    step = jobs_pb2.Establish(
        identity_key=made.user.identity_key, bundles=[b.SerializeToString() for b in bundles]
    )
    return jobs_pb2.Step(establish=step)


def test_a_forged_bundle_opens_no_session_with_anyone() -> None:
    made = Talk(Number.create(), User.create((1, 2)))
    for part in ("signed_pre_key", "kyber_pre_key"):
        forged = bundle(made, 2)
        getattr(forged, part).signature = bytes(64)
        (result,) = made.work(establish_with(made, bundle(made, 1), forged))
        assert failure(result) == "SignatureValidationFailed"
        assert not made.sealed_record


def test_bundles_that_are_none_are_refused_by_name() -> None:
    made = Talk(Number.create(), User.create())
    step = jobs_pb2.Establish(identity_key=made.user.identity_key, bundles=[b"\xff"])
    assert failure(made.work(jobs_pb2.Step(establish=step))[0]) == "BadBundle"
    keyless = bundle(made)
    keyless.ClearField("kyber_pre_key")
    assert failure(made.work(establish_with(made, keyless))[0]) == "NoKeyTypeIdentifier"
    nowhere = bundle(made)
    nowhere.device_id = 128
    assert failure(made.work(establish_with(made, nowhere))[0]) == "InvalidAddress"


def test_an_identity_key_without_a_bundle_proves_nothing() -> None:
    made = talk()
    step = jobs_pb2.Establish(identity_key=b"\x05" + bytes(32), complete=True)
    assert failure(made.work(jobs_pb2.Step(establish=step))[0]) == "BadBundle"
    assert [e.device_id for e in made.send(text_payload())] == [1]


def test_devices_are_added_replaced_and_forgotten() -> None:
    made = talk(1, 2, 3)
    assert [e.device_id for e in made.send(text_payload())] == [1, 2, 3]
    made.work(made.user.establish([2], complete=True))
    assert [e.device_id for e in made.send(text_payload())] == [2]
    made.work(made.user.establish([3, 1]))
    assert [e.device_id for e in made.send(text_payload())] == [1, 2, 3]
    drop = jobs_pb2.DropDevices(device_ids=[1, 3, 99])
    made.work(jobs_pb2.Step(drop_devices=drop))
    assert [e.device_id for e in made.send(text_payload())] == [2]


def test_a_new_bundle_of_a_known_device_archives_its_session() -> None:
    made = answered()
    late = made.envelope(1, text_payload())
    made.work(made.user.establish())
    assert made.step(late).HasField("decrypted")


def reinstall(made: Talk, *devices: int) -> None:
    """The user's account gets a new identity on fresh devices."""
    made.user = User.create(devices, account=made.user.account)


def test_a_new_identity_in_bundles_is_accepted_and_told() -> None:
    made = answered(1, 2)
    old = made.envelope(2, text_payload())
    reinstall(made, 1)
    (result,) = made.work(made.user.establish())
    assert result.established.identity_changed
    assert [e.device_id for e in made.send(text_payload())] == [1]
    assert failure(made.step(old)) == "SessionNotFound"
    (result,) = made.work(made.user.establish())
    assert not result.established.identity_changed


def test_a_new_identity_in_a_first_message_is_accepted_and_told() -> None:
    made = answered(1, 2)
    old = made.envelope(1, text_payload())
    reinstall(made, 1)
    made.start_from(1)
    told = made.step(made.envelope(1, text_payload())).decrypted
    assert told.identity_changed
    assert failure(made.step(old)) == "InvalidMessage"
    assert [made.receive(envelope) for envelope in made.send(b"x" * 16)] == [b"x" * 16]


def test_a_new_identity_that_does_not_decrypt_changes_nothing() -> None:
    made = answered(1, 2)
    before = made.sealed_record
    reinstall(made, 1)
    made.start_from(1)
    step = made.envelope(1, text_payload())
    body = bytearray(step.decrypt.body)
    body[-60] ^= 1
    step.decrypt.body = bytes(body)
    assert made.step(step).HasField("failure")
    assert made.sealed_record == before


def test_the_record_holds_neither_number_nor_content_and_is_sealed() -> None:
    made = answered()
    assert made.user.identity_key not in made.sealed_record
    record = opened(made)
    assert record.user_account_id == made.user.account
    assert record.identity_key == made.user.identity_key
    assert [device.device_id for device in record.devices] == [1]
