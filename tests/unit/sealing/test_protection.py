"""The three ways in which a master key lies in its file, and each way in which they refuse."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from letterlockd.sealing.errors import MasterKeyFault
from letterlockd.sealing.protection import (
    UNPROTECTED,
    Command,
    Passphrase,
    Protections,
    protection_of,
)
from letterlockd.sealing.provider import FileKeyProvider

SECRET = b"correct horse battery"


def passphrase(secret: bytes = SECRET, **costs: int) -> Protections:
    return Protections(
        "passphrase",
        passphrase=Passphrase(
            lambda: secret, **{"memory_kib": 19 * 1024, "iterations": 2, "lanes": 1} | costs
        ),
    )


def command(program: str, seconds: float = 20.0) -> Protections:
    """A key service's client as a Python program: `key` is one line of standard input."""
    wrapped = "import sys; verb = sys.argv[1]; line = sys.stdin.readline().strip()\n" + program
    return Protections("command", command=Command([sys.executable, "-c", wrapped], seconds))


REVERSING = "print(line[::-1])"


@pytest.mark.parametrize("protections", [UNPROTECTED, passphrase(), command(REVERSING)])
async def test_a_key_opens_again_as_its_file_says(tmp_path: Path, protections: Protections) -> None:
    path = tmp_path / "k"
    first = FileKeyProvider(path, protections)
    again = FileKeyProvider(path, protections)
    assert again.key_id == first.key_id
    assert await again.unwrap(await first.wrap(b"key", b"for"), b"for") == b"key"
    name, key_id = protection_of(path.read_bytes())
    assert name == protections.new
    assert key_id == ("" if name == "file" else first.key_id)


@pytest.mark.parametrize("protections", [passphrase(), command("print('token')\n" + REVERSING)])
def test_the_key_is_not_in_a_protected_file(tmp_path: Path, protections: Protections) -> None:
    text = passphrase().text(bytes(range(32)))
    assert base64.b64encode(bytes(range(32))) not in text
    assert SECRET not in text


def test_a_wrong_passphrase_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "k"
    FileKeyProvider(path, passphrase())
    with pytest.raises(MasterKeyFault) as caught:
        FileKeyProvider(path, passphrase(b"wrong horse battery"))
    assert caught.value.reason == "MASTER_KEY_PASSPHRASE"
    assert str(path) in caught.value.message
    assert "horse" not in caught.value.message


@pytest.mark.parametrize("secret", [b"", b"short", b"x" * 4_097])
def test_a_passphrase_has_bounds(secret: bytes) -> None:
    with pytest.raises(MasterKeyFault, match="8 to 4096 bytes") as caught:
        passphrase(secret).text(bytes(32))
    assert caught.value.reason == "MASTER_KEY_PASSPHRASE"


def test_one_line_end_does_not_belong_to_a_passphrase() -> None:
    text = passphrase(SECRET + b"\r\n").text(bytes(range(32)))
    assert passphrase().key(text) == bytes(range(32))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_kib", 8),
        ("memory_kib", 2**40),
        ("memory_kib", "many"),
        ("iterations", 0),
        ("iterations", True),
        ("lanes", 10_000),
        ("salt", "AA=="),
        ("salt", 5),
        ("sealed", "no base64!"),
        ("key_id", "0" * 16),
        ("protection", "magic"),
    ],
)
def test_a_file_cannot_ask_for_more_than_its_bounds(field: str, value: Any) -> None:
    fields = json.loads(passphrase().text(bytes(range(32))))
    fields[field] = value
    with pytest.raises(MasterKeyFault) as caught:
        passphrase().key(json.dumps(fields).encode())
    assert caught.value.reason == "MASTER_KEY_INVALID"


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b"{]", b"AAAA", b"\xff" * 40])
def test_what_is_no_key_file_is_refused(text: bytes) -> None:
    with pytest.raises(MasterKeyFault):
        passphrase().key(text)


@pytest.mark.parametrize("made", [passphrase(), command(REVERSING)])
def test_a_protection_that_is_not_set_up_is_named(made: Protections) -> None:
    with pytest.raises(MasterKeyFault, match=rf"by a {made.new}: set keys\.{made.new}") as caught:
        UNPROTECTED.key(made.text(bytes(32)))
    assert caught.value.reason == f"MASTER_KEY_{made.new.upper()}"


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("sys.exit(3)", "ended with code 3"),
        ("import time; time.sleep(60)", "took longer than"),
        ("pass", "1 to 16384 ASCII"),
        ("print('x' * 20_000)", "1 to 16384 ASCII"),
        ("print('x') if verb == 'wrap' else print('!')", "must answer base64"),
        ("print('x') if verb == 'wrap' else print('AAAA')", "did not give what was wrapped"),
    ],
)
def test_a_command_that_fails_is_refused(program: str, says: str) -> None:
    seconds = 1.0 if "sleep" in program else 20.0
    with pytest.raises(MasterKeyFault, match=says) as caught:
        command(program, seconds).text(bytes(32))
    assert caught.value.reason == "MASTER_KEY_COMMAND"


def test_a_command_that_is_not_there_is_refused() -> None:
    gone = Protections("command", command=Command(["/nowhere/kms"]))
    with pytest.raises(MasterKeyFault, match="cannot be run"):
        gone.text(bytes(32))
