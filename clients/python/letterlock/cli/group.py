"""The command's root: whatever goes wrong is one line and an exit code.

Knows the errors of the SDK and of click, and no command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from letterlock.cli.context import Context
from letterlock.cli.explain import explain
from letterlock.cli.output import error_line, exit_code
from letterlock.errors import InvalidRequest, LetterlockError


class Commands(click.Group):
    """A group whose errors are one line and an exit code."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the command's own options."""
        with _one_line(None):
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _one_line(ctx):
            return super().invoke(ctx)


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
    settings = ctx.obj.settings
    server, target = "gateway", settings.gateway
    if ctx.invoked_subcommand == "device":
        server, target = "relay", settings.relay
    return explain(error, server=server, target=target, ca=settings.ca, insecure=settings.insecure)
