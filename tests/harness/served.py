"""Serves fakes on loopback, for as long as a test wants them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc.aio


@asynccontextmanager
async def served(*adding: Callable[[grpc.aio.Server], None], port: int = 0) -> AsyncIterator[str]:
    """Each of `adding` puts a servicer on the server; gives its target. `port`: 0 is a free one."""
    server = grpc.aio.server()
    for add in adding:
        add(server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
