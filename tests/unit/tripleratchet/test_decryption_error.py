"""Decryption-error messages: bytes as the official client 0.103.0 writes and refuses them."""

from __future__ import annotations

import os

import pytest
import tripleratchet as tr

from tests.harness.ratchet import pair

KEY = bytes.fromhex("05f5ab9c5e828926b96e4130f7f5fdb4049d4d6a3268abfb99a2f0df921eb1c245")
ERROR = bytes.fromhex(f"0a21{KEY.hex()}10fbd095ffbc311807")
"""DecryptionErrorMessage.forOriginal(…, timestamp 1700000000123, device 7).serialize()"""
CONTENT = bytes.fromhex(f"c0422c{ERROR.hex()}80")
"""PlaintextContent.from(…).serialize()"""


def test_bytes_are_the_official_clients() -> None:
    error = tr.DecryptionError(KEY, 1_700_000_000_123, 7)
    assert error.to_bytes() == ERROR
    assert tr.plaintext_content(b"\x42\x2c" + ERROR) == CONTENT
    assert tr.decryption_error_of(CONTENT) == error


def test_fields_that_are_not_known_are_passed_over() -> None:
    body = CONTENT[:-1] + bytes.fromhex("a20610" + "09" * 16 + "a80601") + b"\x80"
    assert tr.decryption_error_of(body).device_id == 7


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("", tr.CiphertextMessageTooShort),
        ("c0", tr.InvalidProtobufEncoding),
        ("c080", tr.InvalidMessage),
        ("c1" + CONTENT.hex()[2:], tr.UnrecognizedCiphertextVersion),
        (CONTENT.hex()[:-2], tr.InvalidProtobufEncoding),
        (CONTENT.hex() + "01", tr.InvalidProtobufEncoding),
        (CONTENT.hex() + "0000", tr.InvalidProtobufEncoding),
        ("c0420080", tr.InvalidProtobufEncoding),
        ("c04202180180", tr.InvalidProtobufEncoding),
        ("c042050a01001001" + "80", tr.RatchetError),
    ],
)
def test_what_the_official_client_refuses(body: str, verdict: type[tr.RatchetError]) -> None:
    with pytest.raises(verdict):
        tr.decryption_error_of(bytes.fromhex(body))


def test_device_and_ratchet_key_may_be_left_out() -> None:
    assert tr.decryption_error_of(bytes.fromhex("c042021007" + "80")) == tr.DecryptionError(
        None, 7, 0
    )


def test_the_error_of_a_message_names_the_session_that_must_go() -> None:
    one, other = pair()
    message = one.encrypt(other, b"one")
    key = tr.DecryptionError.of(message, timestamp_ms=5, device_id=1).ratchet_key
    assert key is not None
    sending, receiving = one.record(other), other.record(one)
    assert sending is not None
    assert receiving is not None
    assert sending.sends_under(key)
    assert not sending.receives_under(key)
    assert not sending.archive().sends_under(key)
    assert not receiving.receives_under(key)  # the first message of a new chain
    other.decrypt(one, message)
    receiving = other.record(one)
    assert receiving is not None
    assert receiving.receives_under(key)
    one.decrypt(other, other.encrypt(one, b"two"))
    moved = one.record(other)
    assert moved is not None
    assert not moved.sends_under(key)  # a turn of the ratchet later the error is old news


def test_the_error_of_a_first_message_has_the_key_inside_it() -> None:
    one, other = pair(acknowledged=False)
    message = one.encrypt(other, b"one")
    key = tr.DecryptionError.of(message, timestamp_ms=5, device_id=1).ratchet_key
    sending = one.record(other)
    assert message.type == tr.MessageType.PRE_KEY
    assert key is not None
    assert sending is not None
    assert sending.sends_under(key)


@pytest.mark.parametrize("kind", [2, 3, 7, 8])
def test_an_unreadable_message_has_no_ratchet_key(kind: int) -> None:
    message = tr.CiphertextMessage(kind, os.urandom(5))
    assert tr.DecryptionError.of(message, timestamp_ms=1, device_id=1).ratchet_key is None
