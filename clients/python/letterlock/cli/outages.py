"""Tells the person at the terminal that the server is away, and that it is back: one line each.

Shows the SDK's log of its streams; knows no command.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from letterlock.cli.context import Context
from letterlock.cli.output import error_line
from letterlock.errors import LetterlockError

_streams = logging.getLogger("letterlock.streams")


@contextmanager
def telling_outages(context: Context, server: str) -> Iterator[None]:
    """For a command that goes on through outages. `server`: gateway or relay."""
    teller = _Teller(context, server)
    _streams.addHandler(teller)
    _streams.setLevel(logging.INFO)
    try:
        yield
    finally:
        _streams.removeHandler(teller)
        _streams.setLevel(logging.NOTSET)


class _Teller(logging.Handler):
    def __init__(self, context: Context, server: str) -> None:
        super().__init__(logging.INFO)
        self._context = context
        self._server = server

    def emit(self, record: logging.LogRecord) -> None:
        match record.args:
            case (LetterlockError() as lost,):
                cause = self._context.explained(lost, self._server)
                self._context.out.note(f"{error_line(cause)}; trying again")
            case _:
                self._context.out.note("letterlock: connected again")
