"""Fields of counters, each with the words that Prometheus shows for it."""

from __future__ import annotations

from dataclasses import field

__all__ = ["HELP", "counted"]

HELP = "help"
"""The key of a field's metadata."""


def counted(text: str) -> int:
    """A dataclass field that counts from 0."""
    made: int = field(default=0, metadata={HELP: text})
    return made
