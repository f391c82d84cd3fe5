"""Whether a store has gone back: how often it was restored, and how far it has come.

    4 history   "generation" → be64, restores so far, told or noticed
                "settled"    → be64, the generation whose consequences are all drawn
                "opened-at"  → be64, the position at the first opening since somebody outside last
                               agreed with it
                "relay-mark" → what this gateway keeps for its relay, which compares it with its own
                               past (`relay.marks`)

A *position* is a number that every commit raises and every copy carries (LMDB's transaction
number). Whoever outside remembers (generation, position) of the newest state that it saw, notices
an older one at the first contact. What is compared is the position from before this and earlier
starts wrote anything, so that a store which went back cannot overtake its own past unseen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Self

from letterlockd.errors import EnvironmentFault
from letterlockd.store.port import Delete, Put, Record, Store, StoreFull, Table

__all__ = ["GENERATION", "HISTORY", "History", "WentBack", "restorations"]

HISTORY = Table("history", 4, expires=False)

GENERATION, _SETTLED, _OPENED_AT = b"generation", b"settled", b"opened-at"
_RELAY_MARK = b"relay-mark"


class WentBack(EnvironmentFault):
    """Somebody outside knows a newer state of the store: it was copied back. It is treated as
    restored from now on, by a fresh start, because nothing in memory can be trusted either."""

    reason = "STORE_WENT_BACK"


class History:
    """The history of one store. Open with `History.open`, before anything else is written."""

    def __init__(
        self,
        store: Store,
        position: Callable[[], int],
        *,
        generation: int,
        settled: int,
        opened_at: int | None,
        mark: bytes,
    ) -> None:
        self._store = store
        self._position = position
        self._settled = settled
        self._opened_at = opened_at
        self.generation = generation
        self.mark = mark
        """The newest mark of the relay that is kept; empty: none."""

    @classmethod
    async def open(cls, store: Store, position: Callable[[], int]) -> Self:
        """Read it, and note the position if none is waiting to be agreed with. `position`: the
        store's, now."""
        keys = [GENERATION, _SETTLED, _OPENED_AT, _RELAY_MARK]
        *numbers, mark = await store.get_many(HISTORY, keys)
        generation, settled, opened_at = (
            None if record is None else int.from_bytes(record.value, "big") for record in numbers
        )
        history = cls(
            store,
            position,
            generation=generation or 0,
            settled=settled or 0,
            opened_at=opened_at,
            mark=b"" if mark is None else mark.value,
        )
        if opened_at is None:
            await history._note_opening(position())
        return history

    @property
    def position(self) -> int:
        """How far the store has come."""
        return self._position()

    @property
    def opened_at(self) -> int:
        """The position to be compared with what is remembered outside."""
        return self.position if self._opened_at is None else self._opened_at

    @property
    def is_settled(self) -> bool:
        """Whether all consequences of the last restore are drawn."""
        return self._settled == self.generation

    async def agreed(self) -> None:
        """Outside, nothing newer is known. On a full disk that is noted with the next agreement: at
        worst, a start before that is taken for a store that went back."""
        if self._opened_at is None:
            return
        with contextlib.suppress(StoreFull):
            await self._store.commit([[Delete(HISTORY, _OPENED_AT)]])
            self._opened_at = None

    async def went_back(self, known_generation: int = 0) -> None:
        """This is an older state of the store: begin a generation that nobody knows yet. Raises
        `StoreFull`; then nothing has changed."""
        generation = max(self.generation, known_generation) + 1
        await self._store.commit([[_put(GENERATION, generation)]])
        self.generation = generation

    async def keep_mark(self, mark: bytes) -> None:
        """Keep the relay's newest mark; on a full disk the one before."""
        with contextlib.suppress(StoreFull):
            await self._store.commit([[Put(HISTORY, _RELAY_MARK, mark)]])
            self.mark = mark

    async def settle(self) -> None:
        """All consequences of this generation are drawn."""
        self._settled = self.generation
        await self._store.commit([[_put(_SETTLED, self.generation)]])

    async def _note_opening(self, position: int) -> None:
        self._opened_at = position
        await self._store.commit([[_put(_OPENED_AT, position)]])


def restorations(generation: Record | None) -> int:
    """How often a store was restored or had gone back, by the record under `GENERATION`."""
    return 0 if generation is None else int.from_bytes(generation.value, "big")


def _put(key: bytes, number: int) -> Put:
    return Put(HISTORY, key, number.to_bytes(8, "big"))
