"""Key agreement against values read out of the official client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import tripleratchet as tr
from tripleratchet import double, keys, kyber, pqxdh, session
from tripleratchet.keys import Random
from tripleratchet.post_quantum import PostQuantum
from tripleratchet.session import Parties, Pending

from .conftest import Receiver, Scripted, load, unbase64, unhex

_CASES = load("pqxdh")


def _side(side: str) -> list[dict[str, Any]]:
    return [case for case in _CASES if case["side"] == side]


@pytest.mark.parametrize("case", _side("responder"), ids=lambda case: case["name"])
def test_responder(case: dict[str, Any]) -> None:
    receiver = Receiver.of(case["responder"])
    one_time, base_key = case["one_time_prekey_id"], unhex(case["base_key"])
    assert keys.is_canonical(base_key)
    secrets = pqxdh.respond(
        receiver.local.identity.private,
        identity_key=unhex(case["initiator_identity_public"]),
        base_key=base_key,
        kyber_ciphertext=unbase64(case["kyber_ciphertext_b64"]),
        signed_pre_key=receiver.keyring.signed[case["signed_prekey_id"]],
        pre_key=None if one_time is None else receiver.keyring.ec[one_time],
        kyber_pre_key=receiver.keyring.kyber[case["kyber_prekey_id"]],
    )
    assert secrets.root_key == unhex(case["root_key"])
    assert secrets.chain_key == unhex(case["chain_key"])
    assert secrets.auth_key == unhex(case["pqr_key"])


@pytest.mark.parametrize("case", _side("responder"), ids=lambda case: case["name"])
def test_first_root_step(case: dict[str, Any]) -> None:
    receiver = Receiver.of(case["responder"])
    signed = receiver.keyring.signed[case["signed_prekey_id"]]
    private = unhex(case["initiator_first_ratchet_private"])
    assert keys.public_of(private) == unhex(case["initiator_first_ratchet_public"])
    stepped = double.root_step(unhex(case["root_key"]), keys.agree(private, signed.public))
    assert stepped == (
        unhex(case["root_key_after_initiator_step"]),
        unhex(case["initiator_sending_chain_key"]),
    )


@dataclass(frozen=True)
class _Given:
    """A post-quantum ratchet that says what the vector says."""

    messages: tuple[dict[str, Any], ...]

    def send(self, random: Random) -> tuple[PostQuantum, bytes, bytes | None]:
        first, *rest = self.messages
        return _Given(tuple(rest)), unhex(first["spqr_message"]), unhex(first["spqr_key"])

    def receive(self, wire: bytes, max_jump: int) -> tuple[PostQuantum | None, bytes | None]:
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        raise NotImplementedError


@pytest.mark.parametrize("case", _side("initiator"), ids=lambda case: case["name"])
def test_initiator_makes_the_messages_byte_for_byte(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver.of(case["responder"])
    sender = Receiver.of(case["initiator"] | _NO_PRE_KEYS).local
    bundle, signed = case["responder_bundle"], receiver.keyring.signed
    one_time = bundle["one_time_prekey_id"]
    signed_public = signed[bundle["signed_prekey_id"]].public
    ciphertext = unbase64(case["encapsulation"]["ciphertext_without_type_byte_b64"])
    shared = kyber.round3_secret(
        unhex(case["encapsulation"]["mlkem1024_shared_secret"]), ciphertext
    )
    assert shared == unhex(case["kyber1024_shared_secret"])
    # Encapsulation takes no randomness from outside, so its result is put in its place.
    monkeypatch.setattr(kyber, "encapsulate", lambda public: (shared, b"\x08" + ciphertext))
    offer = pqxdh.initiate(
        sender.identity.private,
        identity_key=receiver.local.identity.public,
        signed_pre_key=signed_public,
        pre_key=None if one_time is None else receiver.keyring.ec[one_time].public,
        kyber_pre_key=unbase64(bundle["kyber_prekey_public_b64"]),
        random=Scripted(unhex(case["base_private"])),
    )
    assert offer.secrets.root_key == unhex(case["root_key"])
    assert offer.secrets.auth_key == unhex(case["pqr_key"])
    state = session.start_initiator(
        Parties(
            sender.identity.public,
            receiver.local.identity.public,
            offer.base_key,
            sender.registration_id,
            receiver.local.registration_id,
        ),
        offer,
        signed_pre_key=signed_public,
        pending=Pending(
            one_time,
            bundle["signed_prekey_id"],
            bundle["kyber_prekey_id"],
            offer.kyber_ciphertext,
            0,
        ),
        policy=tr.PostQuantumPolicy.REQUIRED,
        random=Scripted(unhex(case["first_ratchet_private"])),
    )
    given = _Given(tuple(case["messages"]))
    state = session.Session(state.parties, state.ratchet, state.pending, given)
    for expected in case["messages"]:
        state, made = session.seal(
            state,
            unhex(expected["plaintext"]),
            local=sender.address,
            remote=receiver.local.address,
            random=Scripted(),
        )
        assert (made.type, made.body) == (expected["type"], unbase64(expected["message"]))


_NO_PRE_KEYS: dict[str, Any] = {
    "one_time_prekeys": [],
    "signed_prekeys": [],
    "kyber_prekeys": [],
}
