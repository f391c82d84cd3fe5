"""Safety numbers against those of the official client."""

from __future__ import annotations

from typing import Any

import pytest
import tripleratchet as tr

from .conftest import load, unhex

_CASES = load("safety-numbers")


def _number(case: dict[str, Any], **changes: Any) -> tr.SafetyNumber:
    return tr.safety_number(
        **{
            "version": case["version"],
            "iterations": case["iterations"],
            "local_identifier": unhex(case["local_identifier"]),
            "local_identity": unhex(case["local_identity_key"]),
            "remote_identifier": unhex(case["remote_identifier"]),
            "remote_identity": unhex(case["remote_identity_key"]),
            **changes,
        }
    )


@pytest.mark.parametrize("case", _CASES, ids=lambda case: case["name"])
def test_safety_number(case: dict[str, Any]) -> None:
    number = _number(case)
    assert number.displayable == case["displayable"]
    assert number.scannable == unhex(case["scannable"])
    other = unhex(case["scannable_other_side"])
    assert number.compare(other) is case["compare_with_other_side"]
    assert number.compare(number.scannable) is case["compare_with_itself"]


def test_another_version_is_not_a_mismatch_of_keys() -> None:
    number = _number(_CASES[0])
    with pytest.raises(tr.FingerprintVersionMismatch):
        number.compare(b"\x08\x63" + number.scannable[2:])


def test_an_absent_version_counts_as_zero() -> None:
    number = _number(_CASES[0], version=0, iterations=2)
    swapped = _number(
        _CASES[0],
        version=0,
        iterations=2,
        local_identifier=unhex(_CASES[0]["remote_identifier"]),
        local_identity=unhex(_CASES[0]["remote_identity_key"]),
        remote_identifier=unhex(_CASES[0]["local_identifier"]),
        remote_identity=unhex(_CASES[0]["local_identity_key"]),
    )
    assert number.compare(swapped.scannable[2:])


@pytest.mark.parametrize("scanned", [b"", b"\xff", b"\x08\x01", b"\x12\x02\x08\x01\x1a\x00"])
def test_other_bytes_are_refused(scanned: bytes) -> None:
    with pytest.raises(tr.FingerprintParsingError):
        _number(_CASES[0], iterations=2).compare(scanned)


@pytest.mark.parametrize("iterations", [0, 1, 1_000_001])
def test_iterations_out_of_range_are_refused(iterations: int) -> None:
    with pytest.raises(tr.InvalidIterationCount):
        _number(_CASES[0], iterations=iterations)
