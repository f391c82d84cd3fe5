"""One daemon for all tests that leave it as they found it; each opens a business of its own."""

from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest
import pytest_asyncio

from tests.harness.people import Shop, open_shop
from tests.harness.supervised import Daemon, daemon

_numbers = count(1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Daemon]:
    """A running daemon; tests that use it run on the session's loop."""
    async with daemon(tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture
def number() -> Callable[[], str]:
    """Phone numbers that no other test has."""
    return lambda: f"+1555{next(_numbers):07d}"


@pytest_asyncio.fixture(loop_scope="session")
async def shop(shared: Daemon, number: Callable[[], str]) -> Shop:
    """A business of the test's own."""
    return await open_shop(shared, number())
