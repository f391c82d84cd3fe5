"""A role's gRPC server: TLS, bounds, health, reflection, and its end.

Built from whatever services a role has; knows nothing of what they do. When it starts and drains
is `role`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from letterlockd.errors import EnvironmentFault
from letterlockd.rpc.interceptors import Authenticator, Gatekeeper, Revocations
from letterlockd.rpc.tls import ServerIdentity

__all__ = ["OPEN_METHODS", "Limits", "ListenFault", "RpcServer", "Service"]

_HEALTH_SERVICE = "/grpc.health.v1.Health/"
_REFLECTION_SERVICE = "/grpc.reflection.v1alpha.ServerReflection/"

OPEN_METHODS = frozenset(
    {
        _HEALTH_SERVICE,
        "/letterlock.relay.v1.Accounts/RequestVerification",
        "/letterlock.relay.v1.Accounts/Register",
        "/letterlock.relay.v1.Accounts/LinkDevice",
    }
)
"""What can be called without a token: what one needs to come by a token, and health."""


class Service(NamedTuple):
    """A service to serve: its full name, its servicer, and the function that adds it to a server
    (the generated one, or one of ours where messages are not parsed)."""

    name: str
    servicer: object
    add: Callable[[Any, grpc.aio.Server], None]


class ListenFault(EnvironmentFault):
    """The address cannot be listened on: in use, not this machine's, or not allowed."""

    reason = "LISTEN_FAILED"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one server.

    `message_bytes`: a frame, either way; `calls`: calls in flight in the process (a stream is one);
    `streams_per_connection`: HTTP/2 streams; `metadata_bytes`: headers of one call;
    `keepalive_s`: silence after which a connection is probed, and lost `keepalive_timeout_s` later.
    """

    message_bytes: int = 8 * 1024 * 1024
    calls: int = 20_000
    streams_per_connection: int = 256
    metadata_bytes: int = 16 * 1024
    keepalive_s: int = 60
    keepalive_timeout_s: int = 20


class RpcServer:
    """One listening server. `start` once, then `drain` once."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        listen: str,
        identity: ServerIdentity,
        authenticator: Authenticator,
        revocations: Revocations | None = None,
        limits: Limits,
        reflect: bool,
    ) -> None:
        self._listen = listen
        open_methods = OPEN_METHODS | ({_REFLECTION_SERVICE} if reflect else frozenset())
        self.gatekeeper = Gatekeeper(
            authenticator,
            open_methods=open_methods,
            max_calls=limits.calls,
            revocations=revocations,
        )
        self._server = grpc.aio.server(
            interceptors=[self.gatekeeper], options=_channel_options(limits)
        )
        self._services = [service.name for service in services]
        for service in services:
            service.add(service.servicer, self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if reflect:
            names = [*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._server)
        self.port = self._bind(identity)

    async def start(self) -> None:
        """Listen. No service is SERVING before it is reported healthy."""
        for service in ("", *self._services):
            await self.report(service, healthy=False)
        await self._server.start()

    async def report(self, service: str, healthy: bool) -> None:
        """Tell whoever asks after a service's health; "" is the whole server."""
        status = health_pb2.HealthCheckResponse
        await self._health.set(service, status.SERVING if healthy else status.NOT_SERVING)

    async def drain(self, grace_s: float) -> None:
        """Report NOT_SERVING, refuse new calls, let running ones end within `grace_s`, then cancel
        them. Returns when the last handler is done."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    def _bind(self, identity: ServerIdentity) -> int:
        credentials = grpc.ssl_server_credentials([(identity.private_key, identity.chain)])
        try:
            port = self._server.add_secure_port(self._listen, credentials)
        except RuntimeError:
            port = 0
        if port == 0:
            raise ListenFault(f"cannot listen on {self._listen}: is another daemon running there?")
        return port


def _channel_options(limits: Limits) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.so_reuseport", 0),  # a second daemon on the port is refused, not half served
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        ("grpc.keepalive_time_ms", limits.keepalive_s * 1000),
        ("grpc.keepalive_timeout_ms", limits.keepalive_timeout_s * 1000),
        ("grpc.http2.ping_timeout_ms", limits.keepalive_timeout_s * 1000),  # else a minute
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    )
