"""What each business number used on each UTC day, for billing: messages and bytes, nothing else.

Counters are kept as totals in memory and written with the batch whose messages they count. A
message of the batch that turns out to be a repeat is taken back, and the next batch writes the
corrected total; a crash between the two leaves it counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from letterlockd.records.v1.relay_pb2 import UsageDay
from letterlockd.relay.settings import DAY_MS
from letterlockd.relay.tables import USAGE, usage_key
from letterlockd.store.port import Put, Store

__all__ = ["Counted", "Usage"]


class Counted(NamedTuple):
    """One message of a business: `sent` by it, or to it; bytes of ciphertext."""

    account: bytes
    sent: bool
    size: int


_Place = tuple[int, bytes]


class Usage:
    """Totals of the days that are being counted."""

    def __init__(self, store: Store, kept_ms: int) -> None:
        self._store = store
        self._kept_ms = kept_ms
        self._totals: dict[_Place, UsageDay] = {}
        self._changed: set[_Place] = set()

    @property
    def owes_a_write(self) -> bool:
        """Whether the next batch has a correction to write."""
        return bool(self._changed)

    async def read(self, account: bytes, day: int) -> UsageDay:
        """The counters of an account on a day since 1970, with what is being written."""
        if (day, account) in self._totals:
            current = UsageDay()
            current.CopyFrom(self._totals[day, account])
            return current
        record = await self._store.get(USAGE, usage_key(day, account))
        return UsageDay() if record is None else UsageDay.FromString(record.value)

    async def fold(self, counted: Iterable[Counted], now_ms: int) -> list[Put]:
        """Count, and the rows to write in the same transaction."""
        day = now_ms // DAY_MS
        self._totals = {
            place: total for place, total in self._totals.items() if place[0] >= day - 1
        }
        for one in counted:
            place = (day, one.account)
            if place not in self._totals:
                self._totals[place] = await self.read(one.account, day)
            self._add(place, one, 1)
        changed, self._changed = self._changed, set()
        return [
            Put(
                USAGE,
                usage_key(*place),
                self._totals[place].SerializeToString(),
                place[0] * DAY_MS + self._kept_ms,
            )
            for place in changed
            if place in self._totals
        ]

    def take_back(self, counted: Iterable[Counted], now_ms: int) -> None:
        """Uncount what came to nothing; `now_ms` as it was given to `fold`."""
        for one in counted:
            place = (now_ms // DAY_MS, one.account)
            if place in self._totals:
                self._add(place, one, -1)

    def _add(self, place: _Place, one: Counted, sign: int) -> None:
        total = self._totals[place]
        if one.sent:
            total.sent_messages += sign
            total.sent_bytes += sign * one.size
        else:
            total.received_messages += sign
            total.received_bytes += sign * one.size
        self._changed.add(place)
