"""What the relay counts: whole numbers since the start, without any name of an account."""

from __future__ import annotations

from dataclasses import dataclass

from letterlockd.model.counting import counted

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Read by telemetry; written on the loop only."""

    submissions: int = counted("Submissions that were taken and are durable; repeats not counted.")
    deliveries: int = counted(
        "Items, of messages or receipts, that a mailbox's owner acknowledged."
    )
    mailbox_full: int = counted("Submissions refused because the recipient's mailbox was full.")
