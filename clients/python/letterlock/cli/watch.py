"""The live view of a business number. Shows the newest events; keeps no more of them."""

from __future__ import annotations

from collections import Counter, deque

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from letterlock.business.events import Event
from letterlock.business.receive_stream import ReceiveStream
from letterlock.cli.output import Output, Row, event_row, table

SHOWN = 20
COLUMNS = ("time", "kind", "user_id", "what")
_OF_DAY = slice(11, 19)
"""Of a moment: hours to seconds. With the date, user ids would not fit on 80 columns."""


async def watch_events(out: Output, events: ReceiveStream, *, ack: bool) -> None:
    """Show events until the stream ends. Without `ack` the view stops when the window is full."""
    if out.is_json:
        async for event in events:
            out.line(event_row(event))
            _done(event, ack)
        return
    newest: deque[Row] = deque(maxlen=SHOWN)
    counts: Counter[str] = Counter()
    with Live(_view(newest, counts), console=out.console, refresh_per_second=8) as live:
        async for event in events:
            row = watch_row(event)
            newest.append(row)
            counts[event.kind if event.status is None else str(row["what"])] += 1
            _done(event, ack)
            live.update(_view(newest, counts))


def watch_row(event: Event) -> dict[str, object]:
    """An event in the four columns of the view."""
    row = event_row(event)
    what = row.get("status") or event.text
    if what is None and event.content is not None:
        what = event.content.WhichOneof("kind") or "unknown content"
    if event.undecryptable is not None:
        asked = "asked for again" if event.undecryptable.resend_requested else "given up"
        what = f"{event.undecryptable_reason}, {asked}"
    elif event.message is not None and event.message.resent:
        what = f"{what} (sent again)"
    return {
        "time": row["time"],
        "kind": event.kind or "unknown",
        "user_id": row.get("user_id", ""),
        "what": what or "",
    }


def _view(newest: deque[Row], counts: Counter[str]) -> RenderableType:
    summary = "  ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    rows = tuple({**row, "time": str(row["time"])[_OF_DAY]} for row in newest)
    return Group(table(rows, COLUMNS), Text(summary or "no events yet", style="dim"))


def _done(event: Event, ack: bool) -> None:
    if ack:
        event.ack()
