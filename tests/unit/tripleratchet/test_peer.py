"""The interop peer's own line protocol, played in one process."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from tripleratchet import peer

_A, _B = {"addr": "+14155550100", "dev": 1}, {"addr": "+14155550101", "dev": 2}


class _Lines:
    """Calls operations as the line protocol would, on one set of parties."""

    def __init__(self) -> None:
        self._peers = peer.Peers()

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(json.dumps(self._peers.run({"op": op, **fields})))
        return answer


@pytest.fixture
def lines() -> _Lines:
    """Parties a and b; a has processed b's bundle."""
    made = _Lines()
    made.call("party", name="a", **_A, reg=1)
    identity = made.call("party", name="b", **_B, reg=2)["pub"]
    kinds = {"opk": {"id": 5}, "spk": {"id": 6}, "kpk": {"id": 7}}
    keys = made.call("preKeys", name="b", **kinds)
    bundle = {"reg": 2, "dev": 2, "id": identity, **keys}
    assert made.call("processBundle", name="a", to=_B, b=bundle) == {}
    return made


def test_a_conversation(lines: _Lines) -> None:
    message = lines.call("encrypt", name="a", to=_B, pt="00ff")
    assert message["type"] == 3
    opened = lines.call("decrypt", name="b", **{"from": _A}, **message)
    assert opened == {"pt": "00ff"}
    many = lines.call("encryptMany", name="b", to=_A, pts=["01", "02"])["out"]
    opened = lines.call("decryptMany", name="a", **{"from": _B}, cts=[*many, many[0]])["out"]
    assert opened[:2] == [{"pt": "01"}, {"pt": "02"}]
    assert opened[2]["err"].startswith("DuplicatedMessage: ")


def test_session_operations(lines: _Lines) -> None:
    stored = lines.call("session", name="a", to=_B)["session"]
    assert lines.call("archive", name="a", to=_B) == {}
    refused = lines.call("encrypt", name="a", to=_B, pt="00")
    assert refused["err"].startswith("SessionNotFound: ")
    assert lines.call("setSession", name="a", to=_B, session=stored) == {}
    assert lines.call("encrypt", name="a", to=_B, pt="00")["type"] == 3
    assert lines.call("dropSession", name="a", to=_B) == {}
    assert lines.call("session", name="a", to=_B) == {"session": None}
    damaged = lines.call("setSession", name="a", to=_B, session="ff")
    assert damaged["err"].startswith("CorruptRecord: ")


def test_given_private_keys_come_back(lines: _Lines) -> None:
    made = lines.call("preKeys", name="b", spk={"id": 1}, kpk={"id": 1}, opk={"id": 1})
    given = {
        "spk": {"id": 2, "priv": made["spk"]["priv"]},
        "kpk": {"id": 2, "seed": made["kpk"]["seed"]},
        "opk": {"id": 2, "priv": made["opk"]["priv"]},
    }
    again = lines.call("preKeys", name="b", **given)
    assert [again[kind]["pub"] for kind in given] == [made[kind]["pub"] for kind in given]
    first = lines.call("party", name="c", **_A, reg=1)
    assert lines.call("party", name="c", **_A, reg=1, priv=first["priv"]) == first


def test_time_can_be_given(lines: _Lines) -> None:
    later = 2**41 + 31 * 24 * 3600 * 1000
    refused = lines.call("encrypt", name="a", to=_B, pt="00", nowMs=later)
    assert refused["err"].startswith("SessionNotFound: ")


def test_every_line_is_answered() -> None:
    out = io.StringIO()
    peer.serve(['{"op": "version"}', "not json", "{}", '{"op": "encrypt"}', "[]"], out)
    answers = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(answers) == 5
    assert "version" in answers[0]
    assert all(answer["err"].startswith("BadRequest: ") for answer in answers[1:])
