"""The flows at their edges: trust, bundles, look-ups, addresses, and what a failure leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tripleratchet as tr
from tripleratchet.messages import PreKeySignalMessage

from tests.harness.ratchet import Device, pair


def _devices() -> tuple[Device, Device]:
    return Device.create("+14155550100"), Device.create("+14155550101")


def test_nothing_to_encrypt_with() -> None:
    one, other = _devices()
    with pytest.raises(tr.SessionNotFound):
        one.encrypt(other, b"text")
    one.start(other)
    one.archive(other)
    with pytest.raises(tr.SessionNotFound):
        one.encrypt(other, b"text")


def test_a_changed_identity_is_refused_in_every_flow() -> None:
    one, other = pair()
    message = one.encrypt(other, b"text")
    stranger = Device.create("stranger").local.identity.public
    for device, peer in ((one, other), (other, one)):
        device.trusted[peer.address] = stranger
    before = one.records[other.address]
    with pytest.raises(tr.UntrustedIdentity):
        one.encrypt(other, b"text")
    with pytest.raises(tr.UntrustedIdentity):
        one.start(other)
    assert one.records[other.address] == before
    with pytest.raises(tr.UntrustedIdentity):
        other.decrypt(one, message)


@pytest.mark.parametrize("field", ["signed_pre_key_signature", "kyber_pre_key_signature"])
@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_a_bundle_needs_both_signatures(field: str, signature: bytes) -> None:
    one, other = _devices()
    with pytest.raises(tr.SignatureValidationFailed):
        one.start(other, replace(other.bundle(), **{field: signature}))
    assert one.record(other) is None


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"identity_key": b""}, tr.NoKeyTypeIdentifier),
        ({"identity_key": bytes(33)}, tr.BadKeyType),
        ({"signed_pre_key": b"\x05" + bytes(31)}, tr.BadKeyLength),
        ({"kyber_pre_key": b""}, tr.NoKeyTypeIdentifier),
        ({"kyber_pre_key": b"\x0a" + bytes(1568)}, tr.BadKEMKeyType),
        ({"kyber_pre_key": b"\x08" + bytes(1567)}, tr.BadKEMKeyLength),
        ({"pre_key": b"\x05" + bytes(32)}, tr.InvalidKeyAgreement),
        ({"pre_key": None}, tr.InvalidBundle),
        ({"pre_key_id": None}, tr.InvalidBundle),
        ({"pre_key_id": 2**32}, tr.InvalidBundle),
        ({"registration_id": -1}, tr.InvalidBundle),
    ],
)
def test_a_bundle_with_a_bad_key(changes: dict[str, object], error: type[Exception]) -> None:
    one, other = _devices()
    with pytest.raises(error):
        one.start(other, replace(other.bundle(), **changes))  # type: ignore[arg-type]


def test_a_signed_kyber_key_out_of_range_is_refused() -> None:
    one, other = _devices()
    public = b"\x08" + b"\xff" * 1568
    signature = tr.sign(other.local.identity.private, public, other.random)
    bundle = replace(other.bundle(), kyber_pre_key=public, kyber_pre_key_signature=signature)
    with pytest.raises(tr.InvalidKeyAgreement):
        one.start(other, bundle)


def test_needed_pre_keys_are_those_that_decrypt_looks_up() -> None:
    one, other = _devices()
    one.start(other, other.bundle(one_time=7, signed=8, kyber=9))
    message = one.encrypt(other, b"first")
    assert tr.needed_pre_keys(None, message) == tr.NeededPreKeys(8, 9, 7)
    other.decrypt(one, message)
    assert tr.needed_pre_keys(other.record(one), message) is None
    assert tr.needed_pre_keys(None, other.encrypt(one, b"answer")) is None
    with pytest.raises(tr.CiphertextMessageTooShort):
        tr.needed_pre_keys(None, tr.CiphertextMessage(3, b""))


def test_used_pre_keys_name_the_triple() -> None:
    one, other = _devices()
    one.start(other, other.bundle(one_time=None, signed=8, kyber=9))
    message = one.encrypt(other, b"first")
    other.decrypt(one, message)
    base_key = PreKeySignalMessage.parse(message.body).base_key
    assert other.keyring.seen == {(9, 8, base_key)}
    del other.records[one.address]
    with pytest.raises(tr.InvalidMessage):
        other.decrypt(one, message)


def test_an_unknown_message_type() -> None:
    one, other = pair()
    with pytest.raises(tr.InvalidMessage):
        other.decrypt(one, tr.CiphertextMessage(7, b"D" * 60))


def test_addresses_are_bound_only_between_service_ids_and_only_at_first() -> None:
    numbers, services = _devices(), pair()
    numbers[0].start(numbers[1])
    assert b"\x32\x24" not in numbers[0].encrypt(numbers[1], b"text").body[:90]
    first = pair(acknowledged=False)
    parsed = PreKeySignalMessage.parse(first[0].encrypt(first[1], b"text").body)
    assert parsed.message.addresses is not None
    assert len(parsed.message.addresses) == 36
    later = services[0].encrypt(services[1], b"text")
    assert b"\x32\x24" not in later.body[-60:]


def test_a_message_bound_to_another_device_is_refused() -> None:
    one, other = pair(acknowledged=False)
    message = one.encrypt(other, b"text")
    other.local = replace(other.local, address=tr.Address(other.address.name, 2))
    with pytest.raises(tr.InvalidMessage):
        other.decrypt(one, message)


def test_a_repeated_first_message_cannot_plant_an_identity() -> None:
    one, other = pair(acknowledged=False)
    other.decrypt(one, one.encrypt(other, b"first"))
    stranger = Device.create("stranger").local.identity.public
    message = one.encrypt(other, b"second")
    planted = message.body.replace(b"\x1a\x21" + one.local.identity.public, b"\x1a\x21" + stranger)
    assert planted != message.body
    with pytest.raises(tr.UntrustedIdentity):
        other.decrypt(one, tr.CiphertextMessage(3, planted))
    del other.trusted[one.address]
    assert other.decrypt(one, tr.CiphertextMessage(3, planted)) == b"second"
    assert other.trusted[one.address] == one.local.identity.public


@pytest.mark.parametrize("registration_id", [-1, 2**32])
def test_a_registration_id_out_of_range(registration_id: int) -> None:
    local = Device.create("one").local
    with pytest.raises(tr.InvalidAddress):
        tr.LocalParty(local.address, local.identity, registration_id)


def test_a_second_session_and_the_way_back_to_the_first() -> None:
    one, other = pair()
    on_the_first = one.encrypt(other, b"on the first")
    other.start(one, one.bundle(one_time=2))
    assert one.decrypt(other, other.encrypt(one, b"second session")) == b"second session"
    assert other.decrypt(one, on_the_first) == b"on the first"
    assert other.encrypt(one, b"back on the first").type == 2


def test_properties_of_a_record() -> None:
    one, other = pair()
    record = one.record(other)
    assert record is not None
    assert record.has_current
    assert record.is_acknowledged
    assert record.remote_identity_key == other.local.identity.public
    assert record.remote_registration_id == other.local.registration_id
    archived = record.archive()
    assert not archived.has_current
    assert archived.remote_identity_key is None
    assert archived.remote_registration_id is None
    assert archived.archive().to_bytes() == archived.to_bytes()


def test_a_pre_key_survives_storage() -> None:
    device = Device.create("one")
    device.bundle()
    ec, signed, kyber = (device.keyring.ec[1], device.keyring.signed[1], device.keyring.kyber[1])
    assert tr.PreKey.from_private(1, ec.to_private_bytes()) == ec
    assert tr.SignedPreKey.from_private(1, signed.to_private_bytes(), signed.signature) == signed
    assert tr.KyberPreKey.from_private(1, kyber.to_private_bytes(), kyber.signature) == kyber
    for short in (b"", bytes(31), bytes(33)):
        with pytest.raises(tr.BadKeyLength):
            tr.PreKey.from_private(1, short)
    with pytest.raises(tr.BadKEMKeyLength):
        tr.KyberPreKey.from_private(1, bytes(63), b"")
