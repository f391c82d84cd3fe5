"""Says what gRPC's own errors mean for the person who typed the command, and what to look at.

Errors that the other side made keep their words. Pure.
"""

from __future__ import annotations

from letterlock.errors import LetterlockError

_NOBODY = (
    "nothing answers",
    "failed to connect",
    "resolving",
    "name resolution",
    "Deadline",
    "no answer",
)


_HUNG_UP = ("Socket closed", "reset by peer")


def explain(
    error: LetterlockError, *, server: str, target: str, ca: str | None, insecure: bool = False
) -> LetterlockError:
    """The error in words that name the place. `server`: gateway or relay."""
    detail = error.detail
    if error.field == "target":
        return _again(error, f"{target} {error.limit} (--{server})")
    if error.reason == "UNIMPLEMENTED":
        return _again(error, f"this is not a {server} at {target} (--{server})")
    if error.reason not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return error
    if "CERTIFICATE_VERIFY_FAILED" in detail:
        by = ca or "the system's authorities"
        return _again(error, f"the certificate of {target} is not vouched for by {by} (--ca)")
    if "Hostname Verification" in detail:
        return _again(error, f"the certificate is not made out to {target} (--{server})")
    if "WRONG_VERSION_NUMBER" in detail:
        return _again(error, f"no TLS at {target} (--{server})")
    if "security handshaker" in detail:
        return _again(error, f"{ca} is no PEM file of an authority (--ca)")
    if "Failed parsing HTTP/2" in detail:
        return _again(error, f"{target} does not speak gRPC: this is not a {server} (--{server})")
    if "failed to connect" in detail and any(sign in detail for sign in _HUNG_UP):
        return _again(error, _hung_up(server, target, insecure))
    if any(sign in detail for sign in _NOBODY):
        asked = f"nothing answers at {target}; is letterlockd running? (--{server})"
        return _again(error, asked)
    return error


def _hung_up(server: str, target: str, insecure: bool) -> str:
    """Somebody took the connection and ended it before anything was said: gRPC tells no more."""
    if insecure:
        return f"{target} hangs up on plaintext: it expects TLS, without --insecure (--{server})"
    return f"{target} hangs up in the TLS handshake: is it a {server}? (--{server})"


def _again(error: LetterlockError, detail: str) -> LetterlockError:
    return type(error)(detail, reason=error.reason, retry_after=error.retry_after)
