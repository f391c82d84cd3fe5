"""A relay over an in-memory store and a clock that tests move."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.clock import FakeClock
from tests.harness.relay import Running, memory_store, running_relay


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def running(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Running]:
    async with running_relay(tmp_path, memory_store(), clock) as relay:
        yield relay
