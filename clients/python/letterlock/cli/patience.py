"""How long a command that somebody waits for tries to reach the other side: some ten seconds.

The SDK by itself tries without end, as a service must.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from letterlock.errors import Unavailable
from letterlock.retry import RetryPolicy

PATIENCE = RetryPolicy(most=2.0, attempts=9)
"""Waits of 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2 and 2 seconds, when no jitter shortens them."""

PATIENCE_SECONDS = 12.0
"""For an address that swallows connections, or a server that takes them and says nothing."""


def whole() -> float:
    """No jitter: one person's command is no herd, and the wait is as long as it says."""
    return 1.0


@asynccontextmanager
async def patiently() -> AsyncIterator[None]:
    """Ends what takes longer. Raises Unavailable."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield
    except TimeoutError:
        raise Unavailable(f"no answer in {PATIENCE_SECONDS:g} s") from None
