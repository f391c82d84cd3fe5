"""The relay's own verifier against the official client's verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from letterlockd.errors import CallerError
from letterlockd.relay.signatures import IdentityVerifier

VECTORS = Path(__file__).parents[2] / "vectors" / "xeddsa.json"
CASES = json.loads(VECTORS.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_verdict(case: dict[str, Any]) -> None:
    def verify() -> None:
        verifier = IdentityVerifier(bytes.fromhex(case["public_key"]), "identity_key")
        signature, message = bytes.fromhex(case["signature"]), bytes.fromhex(case["message"])
        verifier.verify(message, signature, "signature")

    if case["libsignal_valid"] and not case.get("implementation_choice"):
        verify()
    else:
        with pytest.raises(CallerError):
            verify()
