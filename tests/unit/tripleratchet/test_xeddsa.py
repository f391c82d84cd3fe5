"""Signatures against those of the official client."""

from __future__ import annotations

from typing import Any

import pytest
import tripleratchet as tr

from tests.harness.ratchet import ORDER_8

from .conftest import Scripted, load, unhex

_CASES = load("xeddsa")


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case["name"])
def test_verdict(case: dict[str, Any]) -> None:
    # A malleated s is the one case left to the implementation: a strict verifier refuses it.
    valid = case["libsignal_valid"] and not case.get("implementation_choice")
    arguments = (unhex(case["public_key"]), unhex(case["message"]), unhex(case["signature"]))
    if valid:
        tr.verify_signature(*arguments)
    else:
        with pytest.raises(tr.SignatureValidationFailed):
            tr.verify_signature(*arguments)


@pytest.mark.parametrize(
    "case", [case for case in _CASES if case.get("deterministic")], ids=lambda case: case["name"]
)
def test_signature_is_reproduced_from_its_randomness(case: dict[str, Any]) -> None:
    private = tr.IdentityKeyPair.from_private(unhex(case["private_key"])).private
    made = tr.sign(private, unhex(case["message"]), Scripted(unhex(case["random_Z"])))
    assert made == unhex(case["signature"])


@pytest.mark.parametrize("u", [0, 1, *ORDER_8, 2**255 - 20, 2**255 - 19, 2**255 - 18])
def test_nothing_is_signed_by_a_key_of_small_order(u: int) -> None:
    # R is the neutral element and s is 0: right for each challenge that the key's order divides.
    public, neutral = b"\x05" + u.to_bytes(32, "little"), (1).to_bytes(32, "little") + bytes(32)
    for text in range(16):
        with pytest.raises(tr.SignatureValidationFailed):
            tr.verify_signature(public, bytes([text]), neutral)
