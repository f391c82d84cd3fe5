"""A gateway's store as its relay is told of it, without a store."""

from __future__ import annotations


class Unseen:
    """A store that is not compared."""

    generation = 0
    opened_at = 0
    position = 0
    mark = b""

    async def keep_mark(self, mark: bytes) -> None:
        self.mark = mark

    async def agreed(self) -> None:
        pass

    async def went_back(self, known_generation: int) -> None:
        raise AssertionError("nothing to go back to")
