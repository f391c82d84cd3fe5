"""Crafted, forged and replayed inputs against the official client's verdicts."""

from __future__ import annotations

import os
from typing import Any

import pytest
import tripleratchet as tr

from .conftest import Receiver, load_file, unbase64, unhex

_FILE = load_file("receive-verdicts-0.103.0")


@pytest.mark.parametrize("case", _FILE["cases"], ids=lambda case: case["name"])
def test_verdict(case: dict[str, Any]) -> None:
    receiver = Receiver.of(_FILE["responder"])
    for step in case["steps"]:
        if step["op"] == "delete session record":
            receiver.record = None
            continue
        sender, body = step.get("from", case["sender"]), unbase64(step["message"])
        if step["result"] == "ok":
            plaintext = receiver.receive(sender, step["type"], body, os.urandom)
            assert plaintext == unhex(step["plaintext"])
        else:
            with pytest.raises(tr.RatchetError) as caught:
                receiver.receive(sender, step["type"], body, os.urandom)
            assert type(caught.value).__name__ == step["result"]
