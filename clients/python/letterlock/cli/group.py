"""The command's root: whatever goes wrong is one line and an exit code.

Knows the errors of the SDK and of click, and no command.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from letterlock.cli.context import Context
from letterlock.cli.output import error_line, exit_code
from letterlock.errors import InvalidRequest, LetterlockError


class Suggesting(click.Group):
    """A group that names the nearest command to one that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names."""
        if self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if near:
                ctx.fail(f"No such command '{args[0]}'; did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)


class Commands(Suggesting):
    """The root group: its errors are one line and an exit code."""

    group_class = Suggesting

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the command's own options."""
        with _one_line(None):
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _one_line(ctx):
            return super().invoke(ctx)


def take_json_anywhere(group: click.Group) -> None:
    """Let every command below take --json after its name, too."""
    for command in group.commands.values():
        command.params.append(
            click.Option(
                ["--json"], is_flag=True, expose_value=False, callback=_json, help="JSON lines."
            )
        )
        if isinstance(command, click.Group):
            take_json_anywhere(command)


def _json(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and isinstance(ctx.obj, Context):
        ctx.obj.out.is_json = True


@contextmanager
def _one_line(ctx: click.Context | None) -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise  # no error line: the help that was asked for by saying nothing
    except click.UsageError as error:
        _end(_of_click(error))
    except LetterlockError as error:
        _end(_explained(error, ctx))


def _end(error: LetterlockError) -> None:
    click.echo(error_line(error), err=True)
    sys.exit(exit_code(error))


def _of_click(error: click.UsageError) -> InvalidRequest:
    told = " ".join(error.format_message().split())  # click lists choices over several lines
    where = "" if error.ctx is None else f" (`{error.ctx.command_path} --help`)"
    return InvalidRequest(f"{told.rstrip('.')}{where}")


def _explained(error: LetterlockError, ctx: click.Context | None) -> LetterlockError:
    if ctx is None or not isinstance(ctx.obj, Context):
        return error
    return ctx.obj.explained(error, "relay" if ctx.invoked_subcommand == "device" else "gateway")
