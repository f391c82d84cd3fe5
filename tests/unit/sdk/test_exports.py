"""The public names, and what importing them costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import letterlock
import pytest

HEAVY = ("grpc", "asyncio", "tripleratchet", "sqlite3", "click", "rich", "letterlockd")


def loaded_by(statement: str) -> set[str]:
    script = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import letterlock",
        "import letterlock.content.v1.content_pb2",
        "import letterlock.content.padding",
        "import letterlock.errors",
    ],
)
def test_light_imports_stay_light(statement: str) -> None:
    assert loaded_by(statement).isdisjoint(HEAVY)


def test_every_public_name_loads_and_is_listed() -> None:
    for name in letterlock.__all__:
        assert getattr(letterlock, name).__name__ == name
        assert name in dir(letterlock)
    with pytest.raises(AttributeError, match="Nothing"):
        _ = letterlock.Nothing


def test_type_checkers_see_the_names_that_are_loaded() -> None:
    source = Path(letterlock.__file__).read_text()
    guarded = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    seen = {
        alias.asname: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {name: f"letterlock.{home}" for name, home in letterlock._HOME.items()}
    assert seen == homes
    assert sorted(letterlock.__all__) == sorted(homes)


def test_the_sdk_never_imports_the_daemon() -> None:
    for path in Path(letterlock.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not [name for name in names if name.split(".")[0] == "letterlockd"], path.name
