"""Asks before something is destroyed for good. Knows no command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click

from letterlock.cli.context import run_command
from letterlock.errors import InvalidRequest

for_good = click.option("--yes", is_flag=True, help="Do it without asking.")


def make_sure(yes: bool, look: Callable[[], Coroutine[Any, Any, str]], loses: str) -> None:
    """Return only if it is meant. `look` names what is to be destroyed, or raises that it is not
    there; it has ended before the question, so that Ctrl-C ends the question at once. Raises
    InvalidRequest without a terminal, Abort at a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        told = "there is no terminal to ask at whether this may be destroyed for good; use --yes"
        raise InvalidRequest(told)
    named = run_command(look())
    click.confirm(f"This destroys {named} with {loses}. Go on?", abort=True, err=True)
