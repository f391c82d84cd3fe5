"""Looks for what must not be there, in everything that a daemon wrote."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

_CHUNK = 1 << 22


def leaks(folder: Path, needles: Mapping[str, bytes]) -> list[str]:
    """Which of the needles can be found in a file below `folder`: "name in file" each."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found += [f"{name} in {path.relative_to(folder)}" for name in _hits(path, needles)]
    return found


def _hits(path: Path, needles: Mapping[str, bytes]) -> list[str]:
    overlap = max(map(len, needles.values()))
    hits: set[str] = set()
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            held = tail + chunk
            hits |= {name for name, needle in needles.items() if needle in held}
            tail = held[-overlap:]
    return sorted(hits)


def number_patterns(number: str) -> dict[str, bytes]:
    """The ways in which a phone number could stand in a file. The digits without the plus cover
    E.164 text; the integer form leaves out leading zeros, and is six bytes or so: long enough not
    to come about by chance."""
    digits = number.removeprefix("+")
    return {
        "number": digits.encode(),
        "number in UTF-16": digits.encode("utf-16-le"),
        "number as an integer": int(digits).to_bytes(8, "big").lstrip(b"\0"),
        "number as a little-endian integer": int(digits).to_bytes(8, "little").rstrip(b"\0"),
    }


def text_patterns(text: str) -> dict[str, bytes]:
    """The ways in which a text could stand in a file: as it is, and in the three alignments of
    base64."""
    raw = text.encode()
    patterns = {
        "text": raw,
        "text in UTF-16": text.encode("utf-16-le"),
        "text in hex": raw.hex().encode(),
    }
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw)
        patterns[f"text in base64 ({shift})"] = encoded[4 if shift else 0 : -4]
    return patterns
