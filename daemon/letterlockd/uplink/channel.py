"""The gRPC channel to a relay, with settings that suit one long-lived stream."""

from __future__ import annotations

import grpc
import grpc.aio

__all__ = ["MAX_FRAME_BYTES", "open_channel"]

MAX_FRAME_BYTES = 8 * 1024 * 1024
"""The largest frame either way. Frames hold 4 MiB of payload by contract; the rest is slack for
deliveries, whose last item may be 64 KiB."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", MAX_FRAME_BYTES),
    # Our own backoff decides when; the channel shall not add minutes of its own to it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Despite its name: how long one connection may take to come about. A handshake over a slow
    # network, or with a busy machine, takes more than the pauses above.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A relay that vanished without a goodbye is noticed in half a minute: also on a stream on which
    # nothing is said, where gRPC would soon ping once a minute, and wait a minute for the answer.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A connection that another channel to this relay left behind may be dead already.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None, *, name: str = ""
) -> grpc.aio.Channel:
    """A channel to `host:port`; without credentials in clear (same machine, tests). `name`: the
    one in the relay's certificate, where it is not the one in `target`."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    override = (("grpc.ssl_target_name_override", name),) if name else ()
    return grpc.aio.secure_channel(target, credentials, options=(*_OPTIONS, *override))
