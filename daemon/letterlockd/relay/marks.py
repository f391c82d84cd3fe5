"""What gateways keep for the relay, so that it notices when its own store has gone back.

    frames to a gateway ──a mark a second──▶ kept there ──open──▶ newer than this store? ─▶ WentBack

A relay whose store was copied back would hand out one-time pre-keys twice, and cannot notice it by
itself. A mark says how far the store had come. It is authenticated with a key of the store: a
gateway can only give back what it was given, and none can make a relay believe that it went back.

    mark = generation be64, position be64, run (8 random bytes), HMAC-SHA256 cut to 16 bytes

Marks of this process say nothing of its start and are not compared. What came after the last mark
that a gateway has kept is not missed. Knows no gateway's store, and no frame's inside.
"""

from __future__ import annotations

import asyncio
import hmac
import struct
from collections.abc import AsyncIterator, Callable

from letterlock.relay.v1.mailbox_pb2 import ConnectResponse

from letterlockd.clock import Clock
from letterlockd.sealing.keyring import STORE_SCOPE, Keyring
from letterlockd.sealing.seal import subkey
from letterlockd.store.history import History, WentBack

__all__ = ["Marks"]

_MARK_SECONDS = 1.0
_PLACE = struct.Struct(">QQ8s")
_TAG_BYTES = 16
_FIELD = bytes((ConnectResponse.STORE_MARK_FIELD_NUMBER << 3 | 2,))  # length-delimited
_RUN_BYTES = 8


class Marks:
    """Makes and compares marks. Open with `Marks.open`, before the store takes anything."""

    def __init__(self, key: bytes, history: History, run: bytes, clock: Clock) -> None:
        self._key = key
        self._history = history
        self._run = run
        self._clock = clock
        self._opened_at = history.opened_at
        self._fault: WentBack | None = None
        self._went_back = asyncio.Event()

    @classmethod
    async def open(
        cls, keyring: Keyring, history: History, clock: Clock, random: Callable[[int], bytes]
    ) -> Marks:
        """Raises what the store raises."""
        key = subkey(await keyring.scope_key(STORE_SCOPE), "store mark")
        return cls(key, history, random(_RUN_BYTES), clock)

    def mark(self) -> bytes:
        """Of now, 40 bytes."""
        place = _PLACE.pack(self._history.generation, self._history.position, self._run)
        return place + self._tag(place)

    async def shown(self, mark: bytes) -> None:
        """A gateway opens a stream with the newest mark that it has; empty: it has none. One of
        another store, as after a change of the relay, says nothing.

        Raises `WentBack` when the store is older; then a new generation has begun. Raises
        `StoreFull`; then nothing has changed, and no gateway may go on.
        """
        if self._fault is not None:
            raise self._fault
        newer = self._newer(mark)
        if newer is None:
            await self._history.agreed()
            return
        await self._history.went_back(newer)
        self._fault = WentBack(
            "a gateway has a mark of a newer state of this relay's store: it was copied back, and "
            "is treated as restored from the next start on"
        )
        self._went_back.set()
        raise self._fault

    async def watch(self) -> None:
        """Wait until the store is known to be older; raises `WentBack` then."""
        while self._fault is None:
            await self._went_back.wait()
        raise self._fault

    async def among(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Serialised `ConnectResponse`s to a gateway, now and then with a mark."""
        due_s = self._clock.monotonic()
        async for frame in frames:
            now_s = self._clock.monotonic()
            if now_s < due_s:
                yield frame
            else:
                due_s = now_s + _MARK_SECONDS
                mark = self.mark()
                yield frame + _FIELD + bytes((len(mark),)) + mark  # fields may be concatenated

    def _newer(self, mark: bytes) -> int | None:
        """The mark's generation, if the store has not come so far."""
        place, tag = mark[: _PLACE.size], mark[_PLACE.size :]
        if len(place) != _PLACE.size or not hmac.compare_digest(tag, self._tag(place)):
            return None
        generation, position, run = _PLACE.unpack(place)
        known = (self._history.generation, self._opened_at)
        return None if run == self._run or (generation, position) <= known else int(generation)

    def _tag(self, place: bytes) -> bytes:
        return hmac.digest(self._key, place, "sha256")[:_TAG_BYTES]
