"""Tells the operator when the relay cannot be reached, why, and when it is back.

One warning for each reason, not for each try: a relay that is away for a night is one line. Texts
are ours alone; the relay's and gRPC's own words are not passed on.
"""

from __future__ import annotations

import grpc
import grpc.aio
import structlog

__all__ = ["Reach", "reason_of"]

_log = structlog.get_logger(__name__)

_NOT_KNOWN = (
    "the relay does not know keys/gateway.credential; copy keys/gateways/<id>.hash there and "
    "start it again"
)
_NO_ANSWER = "no answer in time"

_SIGNS = (
    ("certificate_verify_failed", "the relay's certificate is not vouched for by gateway.relay_ca"),
    (
        "hostname verification",
        "the relay's certificate is for another name; see gateway.relay_name",
    ),
    ("handshake failed", "the relay's TLS handshake failed; is it a relay that listens there?"),
    ("connection refused", "connection refused; nothing listens there"),
    ("error resolving", "the relay's name cannot be resolved"),
    ("errors resolving", "the relay's name cannot be resolved"),
    ("dns resolution", "the relay's name cannot be resolved"),
)
"""What gRPC's details say, in lower case, and what that means here."""


class Reach:
    """What was last told of one relay. `address` as in gateway.relay."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._told: str | None = None

    def reached(self) -> None:
        """A stream is open."""
        self._told = None
        _log.info("relay_reached", address=self._address)

    def lost(self, error: Exception) -> None:
        """An open stream ended. No warning: a relay that starts again is reached in a moment."""
        _log.info("relay_lost", address=self._address, reason=reason_of(error))

    def failed(self, error: Exception) -> None:
        """A stream could not be opened."""
        reason = reason_of(error)
        if reason != self._told:
            self._told = reason
            _log.warning("relay_unreachable", address=self._address, reason=reason)


def reason_of(error: Exception) -> str:
    """Why there is no stream, for the operator."""
    if isinstance(error, TimeoutError):
        return _NO_ANSWER
    if not isinstance(error, grpc.aio.AioRpcError):
        return str(error)
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return _NOT_KNOWN
    details = (error.details() or "").lower()
    for sign, reason in _SIGNS:
        if sign in details:
            return reason
    return f"status {error.code().name}"
