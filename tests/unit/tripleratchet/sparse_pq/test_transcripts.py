"""Whole runs of the post-quantum ratchet: two of ours by script, and one of ours with the official
client, through stored bytes at every step."""

from __future__ import annotations

from typing import Any

import pytest
from tripleratchet.sparse_pq import SparseRatchet

from ..conftest import Scripted, load_file, unhex

_JUMP = 25_000


def _start(auth_key: str, *, is_initiator: bool) -> SparseRatchet:
    return SparseRatchet.start(unhex(auth_key), is_initiator=is_initiator)


def _stored(ratchet: SparseRatchet) -> SparseRatchet:
    restored = SparseRatchet.from_bytes(ratchet.to_bytes())
    assert restored == ratchet
    return restored


def _send(ratchet: SparseRatchet, event: dict[str, Any]) -> SparseRatchet:
    random = Scripted(*([unhex(event["random"])] if "random" in event else []))
    following, message, key = _stored(ratchet).send(random)
    assert (message, key) == (unhex(event["msg"]), unhex(event["key"]))
    assert random.used_up
    return following


def _receive(ratchet: SparseRatchet, event: dict[str, Any]) -> SparseRatchet:
    following, key = _stored(ratchet).receive(unhex(event["msg"]), _JUMP)
    assert key == unhex(event["key"])
    assert following is not None
    return following


def _name(ratchet: SparseRatchet) -> str:
    return type(ratchet.state).__name__


@pytest.mark.parametrize("name", ["lockstep", "lossy"])
def test_two_of_ours(name: str) -> None:
    run = load_file(f"spqr-transcript-{name}")
    sides = {side: _start(run["auth_key"], is_initiator=side == "A") for side in "AB"}
    for event in run["events"]:
        sender = event["from"]
        receiver = "B" if sender == "A" else "A"
        sides[sender] = _send(sides[sender], event)
        assert _name(sides[sender]) == event["state_after_send"]
        if not event.get("dropped"):
            sides[receiver] = _receive(sides[receiver], event)
            assert _name(sides[receiver]) == event["receiver_state_after"]
    assert [sides[side].epoch for side in "AB"] == run["final_epochs"]


@pytest.mark.parametrize("name", ["a2b", "b2a", "a2b-lossy", "b2a-lossy"])
def test_with_the_official_client(name: str) -> None:
    run = load_file(f"spqr-live-{name}")
    ratchet = _start(run["auth_key"], is_initiator=run["role"] == "A2B")
    for event in run["events"]:
        ratchet = (_send if event["op"] == "send" else _receive)(ratchet, event)
        assert (_name(ratchet), ratchet.epoch) == (event["state_after"], event["epoch_after"])
    assert (_name(ratchet), ratchet.epoch) == (run["final_state"], run["final_epoch"])
