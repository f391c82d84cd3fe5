"""What the relay remembers of a gateway's store, and when it says that one has gone back."""

from __future__ import annotations

import pytest
from letterlockd.relay.pasts import Pasts
from letterlockd.relay.tables import GATEWAYS
from letterlockd.store.memory import MemoryStore
from letterlockd.store.port import Put

GW = "local"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore([GATEWAYS])


async def test_newer_states_are_taken_and_older_ones_told(store: MemoryStore) -> None:
    pasts = await Pasts.open(store, [GW, "other"])
    assert pasts.opened(GW, 0, 100) is None
    pasts.heard(GW, 130)
    pasts.heard(GW, 120)
    assert pasts.opened(GW, 0, 130) is None
    assert pasts.opened(GW, 0, 129) == 0
    assert pasts.opened("other", 0, 1) is None
    assert pasts.opened(GW, 1, 5) is None
    assert pasts.opened(GW, 0, 1_000) == 1
    assert pasts.opened(GW, 1, 4) == 1


async def test_a_gateway_that_says_nothing_is_not_compared(store: MemoryStore) -> None:
    pasts = await Pasts.open(store, [GW])
    pasts.heard(GW, 50)
    assert pasts.opened(GW, 0, 0) is None
    assert pasts.opened(GW, 0, 1) is None


async def test_it_is_remembered_over_a_restart(store: MemoryStore) -> None:
    pasts = await Pasts.open(store, [GW])
    pasts.opened(GW, 3, 100)
    pasts.heard(GW, 200)
    await pasts.write()
    again = await Pasts.open(store, [GW])
    assert again.mailboxes == pasts.mailboxes
    assert again.opened(GW, 3, 199) == 3
    assert again.opened(GW, 3, 200) is None


async def test_a_row_of_the_first_version_is_read(store: MemoryStore) -> None:
    await store.commit([[Put(GATEWAYS, GW.encode(), (77).to_bytes(8, "big"))]])
    pasts = await Pasts.open(store, [GW])
    assert pasts.mailboxes == {GW: 77}
    assert pasts.opened(GW, 0, 10) is None


async def test_a_full_disk_puts_writing_off(store: MemoryStore) -> None:
    pasts = await Pasts.open(store, [GW])
    pasts.opened(GW, 0, 100)
    store.full = True
    await pasts.write()
    store.full = False
    await pasts.write()
    assert (await Pasts.open(store, [GW])).opened(GW, 0, 99) == 0
