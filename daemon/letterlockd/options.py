"""What every command of `letterlockd` shares: the options that choose settings, and that whatever
goes wrong is one line and an exit code. Knows no command.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from letterlockd.config import ConfigFault, load
from letterlockd.errors import EnvironmentFault
from letterlockd.exit_codes import ExitCode, of_error

__all__ = ["Command", "OneLine", "with_first_settings", "with_settings"]

Command = Callable[..., None]


class OneLine(click.Group):
    """The root: what was typed wrongly is told in one line, as every other fault is, and so is
    Ctrl-C."""

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """Read the options."""
        with _one_line():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        told = " ".join(error.format_message().split()).rstrip(".")
        where = "" if error.ctx is None else f" (`{error.ctx.command_path} --help`)"
        click.echo(f"letterlockd: {told}{where}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):  # the latter while a passphrase is asked for
        behind_echo = "\n" if sys.stderr.isatty() else ""  # the terminal has written ^C
        click.echo(f"{behind_echo}letterlockd: ended by Ctrl-C", err=True)
        sys.exit(ExitCode.INTERRUPTED)


def with_settings(command: Command, *, file_must_exist: bool = True) -> Command:
    """Adds the options that choose settings, and turns faults into one line and an exit code. The
    command is given what was loaded, and the arguments that choose the same for a child."""

    @click.option(
        "--config", type=click.Path(path_type=Path), help="Settings file [./letterlock.toml]."
    )
    @click.option("--data", type=click.Path(path_type=Path), help="Data folder.")
    @click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="One setting; can be repeated."
    )
    @functools.wraps(command)
    def wrapped(config: Path | None, data: Path | None, sets: Sequence[str], **rest: Any) -> None:
        try:
            overrides = _overrides(data, sets)
            loaded = load(config, overrides, must_exist=file_must_exist)
            command(loaded, _forwarded(config, data, sets), **rest)
        except EnvironmentFault as fault:
            click.echo(f"letterlockd: {fault.message}", err=True)
            sys.exit(of_error(fault))

    return wrapped


def _overrides(data: Path | None, sets: Sequence[str]) -> dict[str, object]:
    overrides: dict[str, object] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigFault(f"--set {text}: must be KEY=VALUE")
        overrides[key] = value
    if data is not None:
        overrides["data_folder"] = data
    return overrides


def _forwarded(config: Path | None, data: Path | None, sets: Sequence[str]) -> list[str]:
    """The same choice of settings as arguments for a role process."""
    arguments = [part for text in sets for part in ("--set", text)]
    if config is not None:
        arguments += ["--config", str(config)]
    if data is not None:
        arguments += ["--data", str(data)]
    return arguments


def with_first_settings(command: Command) -> Command:
    """The same for a command that may run before there is a settings file."""
    return with_settings(command, file_must_exist=False)
