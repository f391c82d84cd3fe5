"""Opens gRPC channels: TLS by default, limits and keep-alive that fit the contract.

Knows no service. A channel belongs to whoever opened it.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio

from letterlock.errors import InvalidRequest

CA_VARIABLE = "LETTERLOCK_CA"
"""Environment variable with the path of the certificate authority to trust."""

MAX_FRAME_BYTES = 8 * 1024 * 1024
"""The largest frame taken or sent. The contract's largest batch is 4 MiB of messages; below it a
legal frame would cut the stream, far above it one frame could fill the memory."""

KEEPALIVE_MS = 60_000
"""How often an open connection is probed. Sooner, a strict server takes it for abuse; later, a
dead peer is noticed too late."""

_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Without these, gRPC waits a minute for the answer, and pings a quiet stream once a minute only
    # after it has pinged it twice.
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Despite its name: how long one connection may take to come about. A handshake over a slow
    # network takes more than the first pauses.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),
    # Channels to one target would share a connection, and with it its limit of streams.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(
    target: str, *, ca: str | os.PathLike[str] | None = None, insecure: bool = False
) -> grpc.aio.Channel:
    """A channel to `host:port`.

    `ca` is a PEM file (default: LETTERLOCK_CA, else the system's authorities). Plaintext only with
    `insecure=True`: tokens and content would cross the network in clear. Raises InvalidRequest.
    """
    _check_target(target)
    if insecure:
        if ca is not None:
            raise InvalidRequest("both given", field="insecure", limit="cannot be set with ca")
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(_read_ca(ca or os.environ.get(CA_VARIABLE)))
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that authenticates a call. Raises InvalidRequest for what no header can hold."""
    if not token or not token.isascii() or not token.isprintable():
        raise InvalidRequest("no usable token", field="token", limit="printable ASCII, not empty")
    return (("authorization", f"Bearer {token}"),)


def _check_target(target: str) -> None:
    """gRPC would look for a port's name, or take 443, and say only that nobody answers."""
    host, _, port = target.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65_536
    if not target.startswith("unix:") and not (host and is_port):
        raise InvalidRequest("no address", field="target", limit="must be host:port")


def _read_ca(path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise InvalidRequest(
            f"{os.fspath(path)} holds no certificate", field="ca", limit="a PEM file"
        ) from None
    except OSError as error:
        raise InvalidRequest(
            f"cannot be read: {error.strerror}", field="ca", limit="a readable PEM file"
        ) from None
    return content
