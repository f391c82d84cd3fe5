"""What every command is given, and how an async one is run. Knows no command."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import Callable, Coroutine
from typing import Any

from letterlock.business.admin import AdminClient
from letterlock.business.client import BusinessClient
from letterlock.cli.output import Output
from letterlock.cli.patience import PATIENCE, whole
from letterlock.cli.settings import Settings


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


def waits(command: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async command; Ctrl-C is its normal end."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(command(*args, **options))

    return run
