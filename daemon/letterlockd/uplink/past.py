"""What the relay is told of our store, so that it can tell us when the store has gone back.

Knows no store: `store.history.History` is one.
"""

from __future__ import annotations

from typing import Protocol

from letterlockd.errors import EnvironmentFault

__all__ = ["Past", "WentBack"]


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

    async def agreed(self) -> None:
        """The relay knows nothing newer."""
        ...

    async def went_back(self, known_generation: int, /) -> None:
        """The relay knows a newer state, of this generation."""
        ...


class WentBack(EnvironmentFault):
    """The relay knows a newer state of our store: it was copied back. It is treated as restored
    from now on, by a fresh start, because nothing in memory can be trusted either."""

    reason = "STORE_WENT_BACK"
