"""A relay that notices by its gateways' marks that its own store has gone back."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from letterlock.relay.v1.mailbox_pb2 import ConnectResponse, QueueEmpty
from letterlockd.relay.marks import Marks
from letterlockd.sealing.keyring import Keyring
from letterlockd.sealing.provider import FileKeyProvider
from letterlockd.store.history import History, WentBack
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import StoreFull

from tests.harness.clock import FakeClock
from tests.harness.relay import memory_store

FRAME = ConnectResponse(queue_empty=QueueEmpty()).SerializeToString()


class Place:
    """A relay's store whose position is set by hand, over many starts."""

    def __init__(self, folder: Path) -> None:
        self.store: MemoryStore = memory_store()
        self.position = 100
        self.history: History
        self.clock = FakeClock()
        self._key = FileKeyProvider(folder / "key")
        self._runs = itertools.count()

    async def start(self) -> Marks:
        self.history = await History.open(self.store, lambda: self.position)
        ring = await Keyring.open(self.store, self._key, self.clock)

        def random(count: int) -> bytes:
            return next(self._runs).to_bytes(count, "big")

        return await Marks.open(ring, self.history, self.clock, random)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def marked(place: Place, position: int) -> bytes:
    """A gateway's mark from when the store had come so far."""
    marks = await place.start()
    await marks.shown(b"")
    place.position = position
    return marks.mark()


async def test_an_older_store_than_a_gateway_saw_begins_a_generation(place: Place) -> None:
    mark = await marked(place, 500)
    place.position = 300  # copied back
    marks = await place.start()
    with pytest.raises(WentBack):
        await marks.shown(mark)
    with pytest.raises(WentBack):
        await marks.watch()
    assert place.history.generation == 1
    assert not place.history.is_settled
    with pytest.raises(WentBack):  # another gateway, before the process ends
        await marks.shown(b"")
    assert place.history.generation == 1


async def test_a_store_cannot_overtake_its_past_before_a_gateway_comes(place: Place) -> None:
    mark = await marked(place, 500)
    place.position = 300
    await place.start()
    place.position = 900  # devices were served meanwhile
    with pytest.raises(WentBack):
        await (await place.start()).shown(mark)


async def test_after_that_it_is_a_new_past(place: Place) -> None:
    mark = await marked(place, 500)
    place.position = 300
    with pytest.raises(WentBack):
        await (await place.start()).shown(mark)
    marks = await place.start()
    await marks.shown(mark)
    place.position = 301
    assert place.history.generation == 1
    newer = marks.mark()
    place.position = 200  # and once more
    with pytest.raises(WentBack):
        await (await place.start()).shown(newer)
    assert place.history.generation == 2


@pytest.mark.parametrize("position", [500, 501])
async def test_an_ordinary_start_is_as_new_or_newer(place: Place, position: int) -> None:
    mark = await marked(place, 500)
    place.position = position
    await (await place.start()).shown(mark)
    assert place.history.generation == 0


async def test_a_gateway_that_comes_again_is_not_compared_with_the_start(place: Place) -> None:
    marks = await place.start()
    await marks.shown(b"")
    place.position = 500
    await marks.shown(marks.mark())
    assert place.history.generation == 0


async def test_a_mark_that_the_relay_did_not_make_says_nothing(place: Place) -> None:
    mark = await marked(place, 500)
    forged = (1 << 40).to_bytes(8, "big") + mark[8:]
    for said in (b"", b"x", forged, mark[:-1], mark + b"x", mark[:-1] + bytes((mark[-1] ^ 1,))):
        place.position = 300
        await (await place.start()).shown(said)
        assert place.history.generation == 0


async def test_on_a_full_disk_no_gateway_goes_on(place: Place) -> None:
    mark = await marked(place, 500)
    place.position = 300
    marks = await place.start()
    place.store.full = True
    with pytest.raises(StoreFull):
        await marks.shown(mark)
    place.store.full = False
    with pytest.raises(WentBack):
        await marks.shown(mark)


async def test_a_stream_gets_a_mark_at_once_and_then_one_a_second(place: Place) -> None:
    marks = await place.start()

    async def frames() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield FRAME
        await place.clock.advance(1_000)
        for _ in range(2):
            yield FRAME

    given = [ConnectResponse.FromString(frame) async for frame in marks.among(frames())]
    assert [len(frame.store_mark) for frame in given] == [40, 0, 0, 40, 0]
    assert all(frame.HasField("queue_empty") for frame in given)
