"""Whole sessions with official clients, replayed byte for byte."""

from __future__ import annotations

from typing import Any

import pytest
import tripleratchet as tr
from tripleratchet import SessionRecord
from tripleratchet.sparse_pq import SparseRatchet, wire

from .conftest import NOW_MS, Receiver, Scripted, load, unbase64, unhex

_CASES = [
    pytest.param(case, id=f"{version} {case['name']}")
    for version in ("0.72.1", "0.78.2", "0.90.0")
    for case in load(f"session-no-spqr-{version}")
]


@pytest.mark.parametrize("case", _CASES)
def test_session(case: dict[str, Any]) -> None:
    receiver = Receiver.of(case["responder"], tr.PostQuantumPolicy.DECLINED)
    _replay(receiver, case)


@pytest.mark.parametrize("case", load("session-spqr-blackbox-0.103.0"), ids=lambda c: c["name"])
def test_session_with_a_stalled_post_quantum_ratchet(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The responder of this file never says anything about key exchanges: ours is made to."""
    monkeypatch.setattr(SparseRatchet, "send", _send_nothing)
    _replay(Receiver.of(case["responder"]), case)


def _send_nothing(ratchet: SparseRatchet, random: tr.Random) -> tuple[SparseRatchet, bytes, bytes]:
    chains, index, key = ratchet.chains.next_sending(ratchet.epoch - 1)
    message = wire.build(ratchet.epoch, index, wire.NONE, 0, b"")
    return ratchet._replace(chains=chains), message, key


@pytest.mark.parametrize("case", load("session-spqr-one-way-0.103.0"), ids=lambda c: c["name"])
def test_one_direction_before_any_answer(case: dict[str, Any]) -> None:
    receiver, initiator = Receiver.of(case["responder"]), case["initiator"]["address"]
    messages = {message["index"]: message for message in case["messages"]}
    for delivery in case["deliveries"]:
        event = messages[delivery["index"]] | delivery
        if event["result"] != "ok":
            event["error"] = event["result"]
        _receive(receiver, initiator, event)


def _replay(receiver: Receiver, case: dict[str, Any]) -> None:
    initiator = case["initiator"]["address"]
    for event in case["events"]:
        if event["op"] == "receive":
            _receive(receiver, initiator, event)
        elif event["op"] == "send":
            _send(receiver, initiator, event)
        else:
            assert event["op"] == "note"


def _receive(receiver: Receiver, initiator: dict[str, Any], event: dict[str, Any]) -> None:
    body = unbase64(event["message"])
    if "error" in event:
        with pytest.raises(tr.RatchetError) as caught:
            receiver.receive(initiator, event["type"], body, lambda size: b"\x01" * size)
        assert type(caught.value).__name__ == event["error"]
        return
    injected = event.get("responder_new_ratchet_private")
    random = Scripted(*([] if injected is None else [unhex(injected)]))
    plaintext = receiver.receive(initiator, event["type"], body, random)
    assert plaintext == unhex(event["plaintext"])
    assert random.used_up


def _send(receiver: Receiver, initiator: dict[str, Any], event: dict[str, Any]) -> None:
    assert receiver.record is not None
    receiver.record, message = tr.encrypt(
        SessionRecord.from_bytes(receiver.record.to_bytes()),
        local=receiver.local,
        remote=tr.Address(initiator["name"], initiator["device_id"]),
        plaintext=unhex(event["plaintext"]),
        now_ms=NOW_MS,
        random=Scripted(),
    )
    assert (message.type, message.body) == (event["type"], unbase64(event["message"]))
