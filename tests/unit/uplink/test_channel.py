"""How the gateway's channel to a relay, and the SDK's to a gateway, come about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import grpc.aio
import letterlock.channel
import letterlockd.uplink
import pytest

SLOW_SECONDS = 0.5


@pytest.mark.parametrize(
    "opened",
    [
        lambda target: letterlockd.uplink.open_channel(target, None),
        lambda target: letterlock.channel.open_channel(target, insecure=True),
    ],
    ids=["uplink", "sdk"],
)
async def test_a_slow_handshake_is_waited_for(opened: Callable[[str], grpc.aio.Channel]) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    connections = 0

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, to_server, 0))
                both.create_task(_pump(from_server, writer, SLOW_SECONDS))
        finally:
            writer.close()
            to_server.close()

    network = await asyncio.start_server(slowly, "127.0.0.1", 0)
    try:
        async with opened(f"127.0.0.1:{network.sockets[0].getsockname()[1]}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as answered:
                await channel.unary_unary("/nothing/There")(b"", timeout=30)
        assert answered.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert connections == 1
    finally:
        network.close()
        await server.stop(None)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float
) -> None:
    """Everything from one to the other, the first of it late, until the end is passed on."""
    await asyncio.sleep(delay_seconds)
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()
