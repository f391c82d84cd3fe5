"""A store's memory of its own past: what is compared outside after starts, copies and restores."""

from __future__ import annotations

import copy

import pytest
from letterlockd.store.history import HISTORY, History
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import StoreFull


class Place:
    """A store whose position is set by hand."""

    def __init__(self) -> None:
        self.store = MemoryStore([HISTORY])
        self.position = 100

    async def start(self) -> History:
        return await History.open(self.store, lambda: self.position)


@pytest.fixture
def place() -> Place:
    return Place()


async def test_a_start_is_compared_from_where_it_began(place: Place) -> None:
    history = await place.start()
    assert (history.generation, history.opened_at, history.is_settled) == (0, 100, True)
    place.position = 150
    assert (history.opened_at, history.position) == (100, 150)


async def test_starts_that_met_nobody_do_not_move_the_beginning(place: Place) -> None:
    await place.start()
    place.position = 900
    assert (await place.start()).opened_at == 100


async def test_after_an_agreement_the_next_start_begins_where_it_is(place: Place) -> None:
    history = await place.start()
    await history.agreed()
    place.position = 900
    assert history.opened_at == 900
    assert (await place.start()).opened_at == 900


async def test_a_copy_says_the_past(place: Place) -> None:
    history = await place.start()
    await history.agreed()
    copied = copy.deepcopy(place.store)
    place.position = 5_000
    place.store, place.position = copied, 400
    assert (await place.start()).opened_at == 400


async def test_on_a_full_disk_no_generation_is_begun(place: Place) -> None:
    history = await place.start()
    place.store.full = True
    with pytest.raises(StoreFull):
        await history.went_back(known_generation=3)
    assert history.generation == 0
    place.store.full = False
    await history.went_back(known_generation=3)
    assert (await place.start()).generation == 4


async def test_the_relays_newest_mark_is_kept_as_far_as_there_is_room(place: Place) -> None:
    history = await place.start()
    assert history.mark == b""
    await history.keep_mark(b"one")
    place.store.full = True
    await history.keep_mark(b"two")
    assert history.mark == b"one"
    assert (await place.start()).mark == b"one"


async def test_a_generation_that_nobody_knows_is_begun_and_settled(place: Place) -> None:
    history = await place.start()
    await history.went_back(known_generation=6)
    assert (history.generation, history.is_settled) == (7, False)
    history = await place.start()
    assert (history.generation, history.is_settled) == (7, False)
    await history.settle()
    assert (await place.start()).is_settled
    await history.went_back()
    assert (await place.start()).generation == 8
