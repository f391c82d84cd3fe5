"""What the code must not do with secrets, as far as reading it can tell."""

from __future__ import annotations

import ast
import inspect

import pytest
import tripleratchet as tr
from tripleratchet import messages
from tripleratchet.sparse_pq import authenticator, kem, lattice

from tests.harness.ratchet import pair
from tests.harness.sparse import ends, exchange

_ON_PUBLIC_INPUT = {"_constants", "sample_transposed_matrix", "_first_below_q", "check_ek"}
_DIVISIONS = (ast.Div, ast.FloorDiv, ast.Mod)


def _functions() -> list[ast.FunctionDef]:
    found = []
    for module in (lattice, kem):
        tree = ast.parse(inspect.getsource(module))
        found += [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [each for each in found if each.name not in _ON_PUBLIC_INPUT]


@pytest.mark.parametrize("function", _functions(), ids=lambda function: function.name)
def test_no_division_branch_or_loop_on_secret_values(function: ast.FunctionDef) -> None:
    for node in ast.walk(function):
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, _DIVISIONS))
        assert not isinstance(node, ast.If | ast.IfExp | ast.While)


class _Counting:
    def __init__(self) -> None:
        self.calls = 0

    def compare_digest(self, one: bytes, other: bytes) -> bool:
        self.calls += 1
        return one == other


def test_macs_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    of_messages, of_exchange = _Counting(), _Counting()
    monkeypatch.setattr(messages, "hmac", of_messages)
    monkeypatch.setattr(authenticator, "hmac", of_exchange)
    one, other = pair()
    assert of_messages.calls == 2
    sent = one.encrypt(other, b"text")
    forged = sent.body[:-1] + bytes((sent.body[-1] ^ 1,))
    with pytest.raises(tr.InvalidMessage):
        other.decrypt(one, tr.CiphertextMessage(sent.type, forged))
    assert of_messages.calls == 3
    first, second = ends(3)
    first.is_twofold = second.is_twofold = False  # the calls are counted
    while first.epoch < 2:
        exchange(first, second)
        exchange(second, first)
    assert of_exchange.calls == 2  # the header's and the ciphertext's
