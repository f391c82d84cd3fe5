"""Crafted, forged and replayed inputs against the official client's verdicts."""

from __future__ import annotations

import os
from typing import Any

import pytest
import tripleratchet as tr
from tripleratchet import post_quantum

from . import first_epoch
from .conftest import Receiver, load_file, unbase64, unhex

_FILE = load_file("receive-verdicts-0.103.0")


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """The file's responder; these messages are keyed by a post-quantum ratchet's first epoch."""
    monkeypatch.setattr(post_quantum, "start", first_epoch.start)
    monkeypatch.setattr(post_quantum, "restore", first_epoch.restore)
    return Receiver.of(_FILE["responder"])


@pytest.mark.parametrize("case", _FILE["cases"], ids=lambda case: case["name"])
def test_verdict(receiver: Receiver, case: dict[str, Any]) -> None:
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
