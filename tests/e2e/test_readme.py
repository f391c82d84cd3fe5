"""README's five minutes, typed as printed, against the real daemon."""

import asyncio
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.supervised import Daemon, daemon
from tests.harness.terminal import Terminal

pytestmark = pytest.mark.e2e

README = Path(__file__).parents[2] / "README.md"
SHOP, ANA = "+15550100100", "+15550100101"


def printed_commands() -> Iterator[list[str]]:
    """The `letterlock` commands of the section, without their comments."""
    section = README.read_text().partition("## Five minutes to a conversation")[2]
    section = section.partition("\n## ")[0]
    for line in re.findall(r"^\$ (letterlock .*)$", section, flags=re.MULTILINE):
        yield shlex.split(line, comments=True)[1:]


async def run_program(running: Daemon, token: str) -> str:
    """What the section's program prints; it ends by itself."""
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    for printed, real in (("127.0.0.1:7443", running.addresses["gateway"]), ("TOKEN", token)):
        assert printed in program
        program = program.replace(printed, real)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        cwd=running.data.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        said, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    return said.decode()


async def test_the_readme_s_five_minutes(tmp_path: Path) -> None:
    business_id = "BUSINESS_ID"
    answers: dict[str, list[dict[str, object]]] = {}
    async with daemon(tmp_path) as running:
        terminal = Terminal(running)
        for words in printed_commands():
            arguments = [word.replace("BUSINESS_ID", business_id) for word in words]
            rows = await terminal.done(*arguments)
            answers[" ".join(words[:2])] = rows
            if words[:2] == ["business", "create"]:
                business_id = str(rows[0]["business_id"])
        (issued,) = answers["token issue"]
        printed = await run_program(running, str(issued["token"]))
        (offer,) = answers["device receive"]
        assert offer["content"] == {"text": {"body": "Your order is ready"}}
        heard = answers["receive --number"]
        told = [row["status"] for row in heard if row["kind"] == "status"]
        assert told == ["SENT", "DELIVERED", "READ"]
        said = [row["content"] for row in heard if row["kind"] == "message"]
        assert said == [{"text": {"body": "Thank you"}}]
        assert all(line.startswith("status ") for line in printed.splitlines())


async def test_commands_that_fail_say_why_in_one_line(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        terminal = Terminal(running)
        (made,) = await terminal.done("business", "create", "Corner shop")
        business_id = str(made["business_id"])
        await terminal.done("number", "add", business_id, SHOP)
        await terminal.done("token", "issue", "--save", business_id)
        for arguments, code, said in (
            (("send", "--from", SHOP, "--to", ANA, "x"), 4, "UNKNOWN_RECIPIENT"),
            (("send", "--from", SHOP, "--to", "+1", "x"), 2, "INVALID_PHONE_NUMBER"),
            (("send", "--from", ANA, "--to", SHOP, "x"), 2, "token"),
            (("status", "--from", SHOP, "--id", "0" * 32), 4, "NOT_FOUND"),
            (("number", "add", "0" * 32, ANA), 4, "NOT_FOUND"),
            (("--token", "wrong", "business", "list"), 3, "UNAUTHENTICATED"),
            (("--gateway", "127.0.0.1:1", "business", "list"), 7, "UNAVAILABLE"),
        ):
            got, rows, told = await terminal.type(*arguments)
            assert (got, rows) == (code, []), (arguments, told)
            assert said in told, arguments
            assert told.startswith("letterlock: "), arguments
            assert told.count("\n") == 1, arguments


async def test_what_is_destroyed_is_named_before(tmp_path: Path) -> None:
    async with daemon(tmp_path) as running:
        terminal = Terminal(running)
        (made,) = await terminal.done("business", "create", "Corner shop")
        business_id = str(made["business_id"])
        await terminal.done("number", "add", business_id, SHOP)
        await terminal.done("device", "register", ANA)
        code, _, told = await terminal.type("number", "add", business_id, ANA)
        assert (code, told.count("\n")) == (5, 1)
        assert "the number is registered at the relay already" in told
        code, _, told = await terminal.type("device", "send", "--to", "+15550100109", "x")
        assert (code, told.count("\n")) == (4, 1)
        assert "nobody is registered under this number" in told
        code, _, told = await terminal.type("number", "remove", business_id, ANA, answer="y")
        assert (code, told.count("\n")) == (4, 1)
        assert "does not have this number" in told
        remove = ("number", "remove", business_id, SHOP)
        code, _, told = await terminal.type(*remove, answer="n")
        assert (code, f"number {SHOP} of Corner shop" in told) == (1, True)
        code, (left,), _ = await terminal.type(*remove, answer="y")
        assert (code, left["numbers"]) == (0, [])
        code, _, told = await terminal.type("business", "delete", business_id, answer="y")
        assert (code, f"business {business_id} (Corner shop; " in told) == (0, True)
        assert (await terminal.type("business", "delete", business_id, answer="y"))[0] == 4
