"""Message bytes, message keys, chain steps and service-id texts of the official client."""

from __future__ import annotations

from typing import Any

import pytest
from tripleratchet import double, service_id
from tripleratchet.limits import MESSAGE_VERSION
from tripleratchet.messages import SignalMessage, build_signal_message
from tripleratchet.primitives import aes256_cbc_encrypt

from .conftest import load, unhex

_CASES = load("framing")


def _kind(kind: str) -> list[dict[str, Any]]:
    return [case for case in _CASES if case["kind"] == kind]


@pytest.mark.parametrize("case", _kind("signal-message"), ids=lambda case: case["name"])
def test_signal_message(case: dict[str, Any]) -> None:
    salt = None if case["spqr_key"] is None else unhex(case["spqr_key"])
    cipher_key, mac_key, iv = double.message_keys(unhex(case["message_key_seed"]), salt)
    assert (cipher_key, mac_key, iv) == tuple(
        unhex(case[name]) for name in ("cipher_key", "mac_key", "iv")
    )
    ciphertext = aes256_cbc_encrypt(cipher_key, iv, unhex(case["plaintext"]))
    assert ciphertext == unhex(case["ciphertext"])
    sender, receiver = unhex(case["sender_identity"]), unhex(case["receiver_identity"])
    built = build_signal_message(
        mac_key,
        sender + receiver,
        ratchet_key=unhex(case["ratchet_key"]),
        counter=case["counter"],
        previous_counter=case["previous_counter"],
        ciphertext=ciphertext,
        pq_ratchet=unhex(case["pq_ratchet"]),
        addresses=None,
    )
    if case["version"] == MESSAGE_VERSION:  # version 3 is only ever read
        assert built == unhex(case["serialized"])
    parsed = SignalMessage.parse(unhex(case["serialized"]))
    assert (parsed.version, parsed.counter) == (case["version"], case["counter"])
    assert parsed.verify(mac_key, sender + receiver)
    assert not parsed.verify(mac_key, receiver + sender)
    assert double.decrypt_block(cipher_key, iv, parsed.ciphertext) == unhex(case["plaintext"])


@pytest.mark.parametrize("case", _kind("chain-step"), ids=lambda case: case["name"])
def test_chain_step(case: dict[str, Any]) -> None:
    stepped = double.chain_step(unhex(case["chain_key"]))
    assert stepped == (unhex(case["message_key_seed"]), unhex(case["next_chain_key"]))


@pytest.mark.parametrize("case", _kind("service-id"), ids=lambda case: case["name"])
def test_service_id(case: dict[str, Any]) -> None:
    expected = case["fixed_width"]
    assert service_id(case["text"]) == (None if expected is None else unhex(expected))
