"""How many items may be out at a time, and when to go on after a pause.

      out < size                       out <= 80 % of size
    ┌── open ──out reaches size──▶ paused ──────────▶ open

Pausing at 100 % and resuming at 80 % makes a slow reader take items in a few large frames instead
of one for each acknowledgement. Pure; it knows neither items nor streams.
"""

from __future__ import annotations

__all__ = ["DeliveryWindow"]

_RESUME_PERCENT = 80


class DeliveryWindow:
    """Counts what is delivered and not yet acknowledged. `0 <= out <= size` always holds."""

    __slots__ = ("_paused", "_resume_at", "out", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.out = 0
        self._paused = False
        self._resume_at = size * _RESUME_PERCENT // 100

    @property
    def room(self) -> int:
        """How many items may be delivered now; 0 while paused."""
        return 0 if self._paused else self.size - self.out

    def delivered(self, count: int) -> None:
        """`count` items, at most `room`, are on their way."""
        if not 0 <= count <= self.room:
            raise ValueError(f"{count} items do not fit into {self.room}")
        self.out += count
        self._paused = self._paused or self.out == self.size

    def acknowledged(self, count: int) -> None:
        """`count` of the items that are out came back."""
        if not 0 <= count <= self.out:
            raise ValueError(f"{count} items acknowledged, {self.out} are out")
        self.out -= count
        if self.out <= self._resume_at:
            self._paused = False
