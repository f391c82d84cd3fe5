"""No secret, content or name in any repr or error text; no impure import in the package."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import tripleratchet as tr
from tripleratchet import double, messages, post_quantum, pqxdh, resting, session
from tripleratchet import record as record_module
from tripleratchet.sparse_pq import SparseRatchet, ct_side, ek_side
from tripleratchet.sparse_pq.chains import Chains
from tripleratchet.sparse_pq.erasure import Chunks

from tests.harness.ratchet import pair

_SECRET = b"\xa5"
_NAME = "a-name-that-must-not-show"
_IMPURE = {"asyncio", "grpc", "logging", "lmdb", "multiprocessing", "os", "socket", "sys", "time"}


def _modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(tr.__path__, "tripleratchet."):
        yield importlib.import_module(found.name)


def _state_classes() -> list[type]:
    classes = {
        kind
        for module in _modules()
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__ and (_fields(kind) is not None)
    }
    return sorted(classes, key=lambda kind: kind.__qualname__)


def _fields(kind: type) -> list[tuple[str, str]] | None:
    """Field names and annotations of a dataclass or named tuple; None for another class."""
    if dataclasses.is_dataclass(kind):
        return [(field.name, str(field.type)) for field in dataclasses.fields(kind)]
    if hasattr(kind, "_fields"):
        return [(name, str(kind.__annotations__[name])) for name in kind._fields]
    return None


def _filled(kind: type) -> Any:
    """An instance whose every bytes or str field would show up in a careless repr."""
    values: dict[str, Any] = {}
    for name, annotation in _fields(kind) or ():
        if "tuple[int" in annotation:
            values[name] = (7,)
        elif "tuple" in annotation:
            values[name] = (_SECRET * 32,)
        elif "bytes" in annotation:
            values[name] = _SECRET * 32
        elif "str" in annotation:
            values[name] = _NAME
        elif "Address" in annotation:
            values[name] = tr.Address(_NAME, 1)
        elif "Identity" in annotation and "Key" in annotation:
            values[name] = tr.IdentityKeyPair(_SECRET * 32, _SECRET * 33)
        else:
            values[name] = 7
    return kind(**values)


@pytest.mark.parametrize("kind", _state_classes(), ids=lambda kind: kind.__qualname__)
def test_no_state_class_shows_its_bytes(kind: type) -> None:
    shown = repr(_filled(kind)) + str(_filled(kind)) + f"{_filled(kind)}"
    public = kind is tr.IdentityKeyPair  # its public key may show, its private one may not
    assert public or (_SECRET.hex() * 4 not in shown and repr(_SECRET * 4)[2:-1] not in shown)
    assert _NAME not in shown
    assert "private" not in shown


def test_the_walk_finds_the_classes_that_hold_secrets() -> None:
    found = set(_state_classes())
    assert {
        *(tr.PreKey, tr.SignedPreKey, tr.KyberPreKey, tr.IdentityKeyPair, tr.SessionRecord),
        *(tr.Decrypted, tr.CiphertextMessage, tr.LocalParty, tr.Address),
        *(double.Core, double.ReceivingChain, double.Ratchet),
        *(session.Session, session.Pending, session.Parties, resting.Resting),
        *(pqxdh.Secrets, pqxdh.Offer, messages.SignalMessage, messages.PreKeySignalMessage),
        post_quantum.Declined,
        *(SparseRatchet, Chains, Chunks),
        *(ek_side.KeysUnsampled, ek_side.KeysSampled, ek_side.HeaderSent, ek_side.Ct1Received),
        *(ek_side.EkSentCt1Received, ek_side.Completed),
        *(ct_side.NoHeaderReceived, ct_side.HeaderReceived, ct_side.Ct1Sampled),
        *(ct_side.EkReceivedCt1Sampled, ct_side.Ct1Acknowledged, ct_side.Ct2Sampled),
    } <= found


def test_objects_of_a_live_session_show_nothing() -> None:
    one, other = pair()
    record = one.record(other)
    assert record is not None
    current = record.current_session()
    assert current is not None
    shown = repr(
        [
            record,
            record.current,
            current,
            current.ratchet,
            double.Core.decode(current.ratchet.core),
            one.local,
        ]
    )
    private = one.local.identity.private
    assert private.hex() not in shown
    assert repr(private)[2:-1] not in shown
    assert one.address.name not in shown


def test_error_texts_are_fixed() -> None:
    """Every raise gives a literal, or a literal around limits and field numbers."""
    allowed = set(vars(importlib.import_module("tripleratchet.limits")))
    allowed |= {"number", "PUBLIC_KEY_SIZE", "PRIVATE_KEY_SIZE", "SIGNATURE_SIZE", "SEED_SIZE"}
    allowed |= {"CIPHERTEXT_SIZE"}
    for path in Path(tr.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                continue
            for argument in node.exc.args:
                names = {name.id for name in ast.walk(argument) if isinstance(name, ast.Name)}
                assert names <= allowed, f"{path.name}:{node.lineno}"


def test_only_the_peer_is_impure() -> None:
    for path in Path(tr.__path__[0]).rglob("*.py"):
        if path.name == "peer.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & _IMPURE, path.name


def test_the_export_list_is_complete() -> None:
    assert sorted(tr.__all__) == tr.__all__
    errors = importlib.import_module("tripleratchet.errors")
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        assert getattr(tr, name) is kind
    assert record_module.SessionRecord is tr.SessionRecord


def test_reason_codes_are_distinct() -> None:
    errors = importlib.import_module("tripleratchet.errors")
    reasons = [kind.reason for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(set(reasons)) == len(reasons)
