"""How the CLI shows things: tables for people at a terminal, JSON lines for programs.

Turns contract messages into plain values; knows no command and no network.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from letterlock.business.events import Event, status_name
from letterlock.enums import enum_name
from letterlock.errors import (
    AccessDenied,
    Busy,
    Conflict,
    DeviceError,
    InvalidRequest,
    LetterlockError,
    NotFound,
    Unavailable,
    UnknownRecipient,
)
from letterlock.faults import reason_name
from letterlock.v1 import messaging_pb2

EXIT_CODES: tuple[tuple[type[LetterlockError], int], ...] = (
    (UnknownRecipient, 4),  # an InvalidRequest, told apart before it
    (InvalidRequest, 2),
    (AccessDenied, 3),
    (NotFound, 4),
    (Conflict, 5),
    (DeviceError, 5),
    (Busy, 6),
    (Unavailable, 7),
)
"""What a script can tell apart; every other error is 1."""

Row = Mapping[str, object]

_NO_BOUND = 1_000_000
"""Columns of a terminal on which every table fits."""


class Output:
    """Writes rows in the form that was asked for, or that fits where they go."""

    def __init__(self, as_json: bool) -> None:
        """`as_json`: JSON lines even on a terminal."""
        self.console = Console()
        self.is_json = as_json or not sys.stdout.isatty()

    def rows(self, rows: Sequence[Row], columns: Sequence[str], title: str = "") -> None:
        """A table; its rows field by field where the terminal is too narrow for it, so that no id
        is broken or cut; or one JSON object a line."""
        if self.is_json:
            for row in rows:
                self.line(row)
            return
        shown = table(rows, columns, title)
        if self._fits(shown):
            self.console.print(shown)
            return
        for row in rows:
            self._fields({name: row.get(name, "") for name in columns})
            self.console.print()

    def row(self, row: Row) -> None:
        """One object: its fields below each other, or one JSON line."""
        if self.is_json:
            self.line(row)
            return
        self._fields(row)

    def line(self, row: Row) -> None:
        """One JSON line, written out at once."""
        click.echo(json.dumps(row, ensure_ascii=False))

    def _fields(self, row: Row) -> None:
        """Fields below each other. A line may be wider than the terminal, which then goes on in its
        next line: what is copied from there is whole."""
        column = max(map(len, row)) + 2
        for name, value in row.items():
            for at, line in enumerate(cell(value).split("\n")):
                label = "" if at else name
                shown = Text.assemble((label.ljust(column), "dim"), line)
                self.console.print(shown, soft_wrap=True)

    def _fits(self, shown: Table) -> bool:
        unbounded = self.console.options.update(max_width=_NO_BOUND)
        needed = Measurement.get(self.console, unbounded, shown).maximum
        return needed <= self.console.width

    def note(self, text: str) -> None:
        """A remark for people: standard error, so that it never mixes with data."""
        click.echo(text, err=True)


def table(rows: Sequence[Row], columns: Sequence[str], title: str = "") -> Table:
    """Rows as a table; what others wrote is shown as it is, never as markup. Where there is too
    little room, the last column goes on in further lines, and no other one does."""
    shown = Table(title=title or None, title_justify="left")
    for column in columns:
        shown.add_column(column.replace("_", " "), overflow="fold", no_wrap=column != columns[-1])
    for row in rows:
        shown.add_row(*(Text(cell(row.get(column, ""))) for column in columns))
    return shown


def cell(value: object) -> str:
    """A value as text without control characters: a terminal must not obey a stranger. Each part
    of a list has a line of its own."""
    if isinstance(value, list | tuple):
        return "\n".join(cell(part) for part in value)
    if isinstance(value, Mapping):
        value = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def values(message: Message) -> dict[str, object]:
    """A contract message as plain values, with the names of its fields."""
    return MessageToDict(message, preserving_proto_field_name=True)


def event_row(event: Event) -> dict[str, object]:
    """An event in one line."""
    row: dict[str, object] = {
        "event_id": event.event_id,
        "time": moment(event.time),
        "kind": event.kind,
    }
    if event.message is not None:
        row |= {
            "user_id": event.message.user_id,
            "phone_number": event.message.phone_number,
            "message_id": event.message.message_id,
            "sent_time": moment(event.message.sent_time.ToDatetime(UTC)),
            "content": values(event.message.content),
        }
        if event.message.resent:
            row["resent"] = True
        if event.message.identity_unconfirmed:
            row["identity_unconfirmed"] = True
    elif event.status is not None:
        row |= {
            "user_id": event.status.user_id,
            "message_id": event.status.message_id,
            "idempotency_key": event.status.idempotency_key,
            "status": event.status_name,
        }
        if event.status.HasField("failure"):
            row["failure"] = failure_row(event.status.failure)
    elif event.identity_change is not None:
        row |= {
            "user_id": event.identity_change.user_id,
            "held": event.identity_change.held,
        }
    elif event.undecryptable is not None:
        row |= {
            "user_id": event.undecryptable.user_id,
            "message_id": event.undecryptable.message_id,
            "reason": event.undecryptable_reason,
            "resend_requested": event.undecryptable.resend_requested,
        }
    return row


def message_row(message: messaging_pb2.Message) -> dict[str, object]:
    """A sent message and how far it has come, in one line."""
    row = values(message) | {"status": status_name(message.status)}
    if message.HasField("failure"):
        row["failure"] = failure_row(message.failure)
    return row


def failure_row(failure: messaging_pb2.Failure) -> dict[str, object]:
    """Why a message failed: where, for which reason, and whether a new attempt may succeed."""
    return {
        "hop": enum_name(messaging_pb2.Hop, failure.hop, "HOP_"),
        "reason": reason_name(failure.reason),
        "retryable": failure.retryable,
    }


def digits_in_groups(digits: str) -> str:
    """A safety number as people compare it: groups of five."""
    return " ".join(digits[at : at + 5] for at in range(0, len(digits), 5))


def moment(time: datetime) -> str:
    """A time in UTC as contract messages show it: 2026-01-31T12:00:00.000Z."""
    shown = time.astimezone(UTC).isoformat(timespec="milliseconds")
    return shown.removesuffix("+00:00") + "Z"


def error_line(error: LetterlockError) -> str:
    """One line: reason, text, field and limit, when to come back."""
    wait = f"; try again in {error.retry_after:g} s" if error.retry_after is not None else ""
    return f"letterlock: {cell(str(error))}{wait}"


def exit_code(error: LetterlockError) -> int:
    """The process's exit code for an error."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)
