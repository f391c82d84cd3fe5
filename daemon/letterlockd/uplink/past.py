"""What the relay is told of our store, so that it can tell us when the store has gone back, and
the mark that we keep so that it notices the same of its own.

Knows no store: `store.history.History` is one.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Past"]


class Past(Protocol):
    """How often the store was restored, and how far it has come."""

    generation: int

    @property
    def opened_at(self) -> int:
        """The position that the relay compares; 0: it does not."""
        ...

    @property
    def position(self) -> int:
        """The position now."""
        ...

    @property
    def mark(self) -> bytes:
        """The newest mark of the relay that was kept; empty: none."""
        ...

    async def keep_mark(self, mark: bytes, /) -> None:
        """Keep this one instead."""
        ...

    async def agreed(self) -> None:
        """The relay knows nothing newer."""
        ...

    async def went_back(self, known_generation: int, /) -> None:
        """The relay knows a newer state, of this generation."""
        ...
