"""What every client of a gateway has: a connection, a token, and calls that it makes with them."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Self, TypedDict, Unpack

import grpc.aio

from letterlock.calls import Calls
from letterlock.channel import bearer, open_channel
from letterlock.closing import Closing
from letterlock.errors import InvalidRequest
from letterlock.reconnect import Sleep
from letterlock.retry import RetryPolicy


class GatewayOptions(TypedDict, total=False):
    """How a client reaches its gateway."""

    ca: str | os.PathLike[str] | None
    """The PEM file of the gateway's authority (default: LETTERLOCK_CA, else the system's)."""
    insecure: bool
    """Plaintext: tokens and content cross the network in clear."""
    channel: grpc.aio.Channel | None
    """The caller's own, not closed here, instead of `target`."""
    deadline: float
    """Seconds given to each try of a single call (default: 10)."""
    retry: RetryPolicy | None
    """How long to wait, and how often to try (default: five times; streams without end)."""
    jitter: Callable[[], float]
    """Gives a number from 0 to 1, for waits that spread."""
    sleep: Sleep
    """asyncio.sleep, or what a test puts in its place."""


class GatewayClient(Closing):
    """A gateway and a token for it. Use it with `async with`."""

    def __init__(self, target: str, token: str, **options: Unpack[GatewayOptions]) -> None:
        """`target` is `host:port`. Raises InvalidRequest for a token that no header can hold."""
        self._target = target
        self._ca, self._insecure = options.get("ca"), options.get("insecure", False)
        self._given_channel = options.get("channel")
        self._channel = self._given_channel
        self._retry = options.get("retry") or RetryPolicy()
        self._jitter = options.get("jitter", random.random)
        self._sleep = options.get("sleep", asyncio.sleep)
        self._calls = Calls(
            deadline=options.get("deadline", 10.0),
            retry=self._retry,
            jitter=self._jitter,
            sleep=self._sleep,
        )
        self._calls.metadata = bearer(token)

    async def __aenter__(self) -> Self:
        if self._channel is None:
            self._channel = open_channel(self._target, ca=self._ca, insecure=self._insecure)
        return self

    async def aclose(self) -> None:
        """End the connection."""
        if self._channel is not None and self._given_channel is None:
            await self._channel.close()
            self._channel = None

    @property
    def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise InvalidRequest("not connected", field="client", limit="inside async with")
        return self._channel
