"""docs/data-protection.md claims nothing without a test, and names no test that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from letterlockd.app.stores import STORES
from letterlockd.sealing import keyring
from letterlockd.sealing.deletions import DELETIONS
from letterlockd.store.history import HISTORY

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "data-protection.md").read_text()

_, _, AFTER_HEADING = TEXT.partition("\n## Which test shows it\n")
CLAIMS = [
    line.strip("|").split("|")
    for line in AFTER_HEADING.partition("\n## ")[0].splitlines()
    if line.startswith("| ") and not line.startswith("| claim ")
]


def test_the_claims_are_found() -> None:
    assert len(CLAIMS) > 20
    assert {len(cells) for cells in CLAIMS} == {2}


@pytest.mark.parametrize("cells", CLAIMS, ids=lambda cells: cells[0].strip()[:60])
def test_every_claim_names_tests_that_exist(cells: list[str]) -> None:
    named = re.findall(r"`([^`]+)::(\w+)`", cells[1])
    assert named, "no test"
    for file, name in named:
        assert re.search(rf"^ *(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("store", STORES)
def test_every_table_of_a_store_is_explained(store: str) -> None:
    _, _, section = TEXT.partition(f"\n**{store.capitalize()} store** ")
    rows = re.findall(r"^\| ([^|]+) \|", section.partition("\n**")[0], re.MULTILINE)
    explained = {re.sub(r"\W", " ", name) for row in rows for name in row.split(", ")}
    in_every_store = (*keyring.TABLES, HISTORY, DELETIONS) if store == "gateway" else ()
    for table in (*STORES[store], *in_every_store):
        name = re.sub(r"[-_]", " ", table.name)
        assert any(row == name or row.startswith(f"{name} ") for row in explained), table.name


def test_every_other_file_that_is_named_exists() -> None:
    named = re.findall(r"`((?:tests|docs|clients)/[^`:]+)`", TEXT)
    assert [file for file in named if not (ROOT / file).exists()] == []
