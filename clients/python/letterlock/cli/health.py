"""`letterlock health`: asks gateway and relay by the standard gRPC health service; needs no token.

The one call is made without generated code, which would be one more dependency for two bytes.
"""

from __future__ import annotations

import click
import grpc.aio

from letterlock.channel import open_channel
from letterlock.cli.context import Context, waits
from letterlock.cli.explain import explain
from letterlock.cli.settings import Settings
from letterlock.errors import LetterlockError, Unavailable
from letterlock.faults import from_rpc

COLUMNS = ("server", "address", "health")
DEADLINE_SECONDS = 5.0

_SERVING, _NOT_SERVING = "SERVING", "NOT_SERVING"
_WHERE_TO_LOOK = "the daemon's log, event messages_do_not_move, names what does not move"

_CHECK = "/grpc.health.v1.Health/Check"
_WHOLE_SERVER = b""
"""A HealthCheckRequest that names no service."""
_SERVING_ANSWER = b"\x08\x01"
"""HealthCheckResponse.status = SERVING."""


@click.command()
@click.pass_obj
@waits
async def health(context: Context) -> None:
    """Show whether gateway and relay serve; exit code 7 if one of them does not."""
    settings = context.settings
    servers = (("gateway", settings.gateway), ("relay", settings.relay))
    rows = [
        {"server": server, "address": target, "health": await _health(settings, server, target)}
        for server, target in servers
    ]
    context.out.rows(rows, COLUMNS)
    away = [row["server"] for row in rows if row["health"] != _SERVING]
    if away:
        told = f"not serving: {', '.join(away)}"
        if any(row["health"] == _NOT_SERVING for row in rows):
            told += f"; {_WHERE_TO_LOOK}"
        raise Unavailable(told)


async def _health(settings: Settings, server: str, target: str) -> str:
    """Whether it serves, or why there is no answer."""
    ca, insecure = settings.ca, settings.insecure
    try:
        return _SERVING if await _is_serving(target, ca, insecure) else _NOT_SERVING
    except LetterlockError as error:
        return explain(error, server=server, target=target, ca=ca, insecure=insecure).detail


async def _is_serving(target: str, ca: str | None, insecure: bool) -> bool:
    async with open_channel(target, ca=ca, insecure=insecure) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
        try:
            answer = await check(_WHOLE_SERVER, timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error) from None
    return answer == _SERVING_ANSWER
