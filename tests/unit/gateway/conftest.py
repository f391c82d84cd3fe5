from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from letterlockd.clock import SystemClock

from tests.harness.gateway import World, running_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_world(tmp_path, SystemClock()) as running:
        yield running
