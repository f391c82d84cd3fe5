"""What the CLI asks, takes and suggests: confirmation, times, --json, near commands."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from letterlock.business.client import BusinessClient
from letterlock.cli import asking
from letterlock.cli.commands import main
from letterlock.cli.context import Context
from letterlock.cli.group import Suggesting, take_json_anywhere
from letterlock.cli.inbox import Moment
from letterlock.cli.output import Output
from letterlock.cli.settings import Settings
from letterlock.errors import InvalidRequest, Unavailable

from tests.harness.fakes_relay import FakeRelay, serving_relay
from tests.harness.fakes_sdk import NUMBER
from tests.unit.sdk.test_cli import USER, letterlock

BUSINESS = "0" * 32
NOBODY = "neither a phone number nor an id"
WAYS = "+ and 7 to 15 digits, or a user id of 32 hex characters"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("2026-11-22T07:50:00.051Z", datetime(2026, 11, 22, 7, 50, 0, 51_000, UTC)),
        ("2026-11-22T08:50:00+01:00", datetime(2026, 11, 22, 7, 50, tzinfo=UTC)),
        ("2026-11-22T07:50:00", datetime(2026, 11, 22, 7, 50, tzinfo=UTC)),
        ("2026-11-22 07:50:00", datetime(2026, 11, 22, 7, 50, tzinfo=UTC)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
    ],
)
def test_times_are_taken_as_they_are_printed(typed: str, meant: datetime) -> None:
    assert Moment().convert(typed, None, None) == meant


@pytest.mark.parametrize("typed", ["", "yesterday", "2026-13-01", "0001-01-01T00:00:00+01:00"])
def test_what_is_no_time_names_the_form(typed: str) -> None:
    with pytest.raises(click.BadParameter, match="ISO 8601"):
        Moment().convert(typed, None, None)
    told = CliRunner().invoke(main, ["inbox", "replay", "--number", NUMBER, "--since", typed])
    assert (told.exit_code, told.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ("number", "remove", BUSINESS, NUMBER),
        ("business", "delete", BUSINESS),
        ("inbox", "drop-dead-letters", "--number", NUMBER, "--all"),
    ],
)
def test_without_a_terminal_nothing_is_destroyed_unless_told(arguments: tuple[str, ...]) -> None:
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 2
    assert told.stderr.startswith("letterlock: ")
    assert told.stderr.endswith("use --yes\n")
    assert told.stderr.count("\n") == 1


class Terminal:
    """A standard input at which somebody sits."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: bool) -> list[str]:
    """Have every question answered; the questions."""
    asked: list[str] = []

    def confirm(question: str, **_: Any) -> None:
        asked.append(question)
        if not answer:
            raise click.Abort

    monkeypatch.setattr(asking.sys, "stdin", Terminal())
    monkeypatch.setattr(asking.click, "confirm", confirm)
    return asked


async def _number() -> str:
    return "number +1 of Shop"


async def _missing() -> str:
    raise InvalidRequest("not there")


def test_the_question_names_what_is_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = at_a_terminal(monkeypatch, answer=True)
    asking.make_sure(False, _number, "its keys")
    assert asked == ["This destroys number +1 of Shop with its keys. Go on?"]
    asking.make_sure(True, _missing, "its keys")
    with pytest.raises(InvalidRequest, match="not there"):
        asking.make_sure(False, _missing, "its keys")
    assert len(asked) == 1


def test_a_no_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    at_a_terminal(monkeypatch, answer=False)
    with pytest.raises(click.Abort):
        asking.make_sure(False, _number, "its keys")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("status", "--from", NUMBER), "which message? (options: --id or --key, one of them)"),
        (
            ("inbox", "replay", "--number", NUMBER),
            "from where? (options: --since or --from-event, one of them)",
        ),
        (
            ("identity", "confirm", "--number", NUMBER, USER),
            "what was checked? (options: --digits or --scanned, one of them)",
        ),
        (
            ("identity", "confirm", "--number", NUMBER, "--scanned", "x", USER),
            "not in hex (--scanned: hex digits)",
        ),
        (("send", "--from", NUMBER, "--to", "00", "hi"), f"{NOBODY} (--to: {WAYS})"),
        (("identity", "show", "--number", NUMBER, "00"), f"{NOBODY} (USER: {WAYS})"),
        (
            ("identity", "confirm", "--number", NUMBER, "--digits", "0", "0"),
            f"{NOBODY} (USER: {WAYS})",
        ),
        (("device", "safety-number", "00"), f"{NOBODY} (PARTY: {WAYS})"),
        (("device", "send", "--to", "00", "hi"), f"{NOBODY} (--to: {WAYS})"),
    ],
)
def test_an_error_names_what_was_to_be_typed(arguments: tuple[str, ...], told: str) -> None:
    shared = ("--gateway", "127.0.0.1:1", "--token", "business")
    ended = CliRunner().invoke(main, [*shared, *arguments])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr == f"letterlock: INVALID_FIELD: {told}\n"


@pytest.mark.parametrize(
    ("arguments", "near"),
    [(("busines", "list"), "business"), (("inbox", "replya"), "replay")],
)
def test_the_nearest_command_is_named(arguments: tuple[str, ...], near: str) -> None:
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 2
    assert f"did you mean '{near}'?" in told.stderr
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "is_json"), [(["probe"], False), (["probe", "--json"], True)]
)
def test_json_is_taken_after_the_command(arguments: list[str], is_json: bool) -> None:
    context = Context(Settings(), Output(as_json=True))
    context.out.is_json = False
    root = Suggesting("root", commands={"probe": click.Command("probe")})
    take_json_anywhere(root)
    root.main(arguments, obj=context, standalone_mode=False)
    assert context.out.is_json is is_json
    assert "--json" in CliRunner().invoke(main, ["business", "list", "--help"]).stdout


async def test_a_code_that_is_not_found_is_told_without_a_terminal(tmp_path: Path) -> None:
    async with serving_relay(FakeRelay()) as target:
        registering = ("device", "register", USER)
        code, lines, err = await letterlock(tmp_path, "", "--relay", target, *registering)
    assert (code, lines) == (2, [])
    assert "found no code in letterlock-data/verification" in err
    assert "--code" in err
    assert err.count("\n") == 1


async def test_the_sdk_says_that_nothing_answers() -> None:
    async def at_once(_: float) -> None:
        return

    async with BusinessClient(
        "127.0.0.1:1", "token", number=NUMBER, insecure=True, sleep=at_once
    ) as client:
        with pytest.raises(Unavailable, match=r"UNAVAILABLE: nothing answers at 127\.0\.0\.1:1$"):
            await client.message("0" * 32)
