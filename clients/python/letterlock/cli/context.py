"""What every command is given, and how an async one is run. Knows no command."""

from __future__ import annotations

import asyncio
import functools
import random
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from letterlock.business.admin import AdminClient
from letterlock.business.client import BusinessClient
from letterlock.cli.explain import explain
from letterlock.cli.output import Output
from letterlock.cli.patience import PATIENCE, whole
from letterlock.cli.settings import Settings
from letterlock.errors import LetterlockError

_Result = TypeVar("_Result")

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: what was asked for may not have happened."""


class Context:
    """What every command gets: settings and where to write."""

    def __init__(self, settings: Settings, out: Output) -> None:
        self.settings = settings
        self.out = out

    def admin(self) -> AdminClient:
        """A client with the operator's token."""
        found = self.settings
        return AdminClient(
            found.gateway, found.operator_token(), ca=found.ca, insecure=found.insecure
        )

    def business(self, number: str, *, patient: bool = True) -> BusinessClient:
        """A client for a business number; with `patient` its streams are tried without end."""
        found = self.settings
        return BusinessClient(
            found.gateway,
            found.business_token(number),
            number=number,
            ca=found.ca,
            insecure=found.insecure,
            retry=None if patient else PATIENCE,
            jitter=random.random if patient else whole,
        )

    def explained(self, error: LetterlockError, server: str) -> LetterlockError:
        """The error in words that name the place. `server`: gateway or relay."""
        found = self.settings
        target = found.relay if server == "relay" else found.gateway
        return explain(error, server=server, target=target, ca=found.ca, insecure=found.insecure)


def waits(command: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async command that comes to an end by itself."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        run_command(command(*args, **options))

    return run


def listens(command: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async command that goes on until it is stopped: Ctrl-C is its normal end."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        run_command(command(*args, **options), interrupted=0)

    return run


def run_command(work: Coroutine[Any, Any, _Result], *, interrupted: int = INTERRUPTED) -> _Result:
    """Run to the end, or, after Ctrl-C and what has to be put in order, to this exit code."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        sys.exit(interrupted)
