"""The one exception tree of the daemon, sorted by whose fault a failure is.

    LetterlockError
    ├── CallerError        the request is wrong or not allowed; repeating it as it is will not help
    │   ├── InvalidField       names the field and the limit
    │   ├── Unauthenticated    no token, a wrong one, or a revoked one
    │   ├── Forbidden          a good token, but not for this object
    │   ├── NotFound           the named object does not exist for this caller
    │   ├── AlreadyExists      the name or number is taken
    │   └── Conflict           the object is in another state than the request assumes
    ├── BusyError          a bound was reached; carries when to try again
    ├── EnvironmentFault   disk, keys, folder, network: the operator's to mend
    └── BrokenInvariant    a bug of ours: logged at error level, told to nobody in detail

Every class carries a `reason` (UPPER_SNAKE_CASE, stable: callers match on it).
Messages
are safe to show: no content, numbers, tokens or keys. `letterlockd.rpc.faults` maps the
tree to gRPC; this module knows nothing of gRPC.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExists",
    "BrokenInvariant",
    "BusyError",
    "CallerError",
    "Conflict",
    "EnvironmentFault",
    "Forbidden",
    "InvalidField",
    "LetterlockError",
    "NotFound",
    "Unauthenticated",
]


class LetterlockError(Exception):
    """Base of every error that the daemon raises on purpose.

    `reason` is the stable code, `retry_after_ms` when a repeat may succeed (None: never as it is).
    """

    reason: str = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        retry_after_ms: int | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason
        self.retry_after_ms = retry_after_ms
        self.metadata = metadata

    @property
    def message(self) -> str:
        """The text that may be shown to the other side."""
        return str(self.args[0])


class CallerError(LetterlockError):
    """The caller's request is at fault."""

    reason = "INVALID_REQUEST"


class InvalidField(CallerError):
    """A field is malformed or past its limit; `field` and `limit` say which and what."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, limit: str, *, reason: str | None = None) -> None:
        super().__init__(f"{field}: {limit}", reason=reason, field=field, limit=limit)
        self.field = field
        self.limit = limit


class Unauthenticated(CallerError):
    """No credential, a wrong one, or one that was revoked."""

    reason = "UNAUTHENTICATED"


class Forbidden(CallerError):
    """The credential is good but does not reach this object."""

    reason = "FORBIDDEN"


class NotFound(CallerError):
    """The object does not exist, or not for this caller."""

    reason = "NOT_FOUND"


class AlreadyExists(CallerError):
    """The name, number or id is taken."""

    reason = "ALREADY_EXISTS"


class Conflict(CallerError):
    """The object is not in the state that the request assumes."""

    reason = "CONFLICT"


class BusyError(LetterlockError):
    """A bound was reached (rate, queue, disk, window): try again after `retry_after_ms`."""

    reason = "BUSY"

    def __init__(self, message: str, *, retry_after_ms: int, reason: str | None = None) -> None:
        super().__init__(message, reason=reason, retry_after_ms=retry_after_ms)


class EnvironmentFault(LetterlockError):
    """Something around the daemon (folder, disk, key, peer) is wrong; an operator can mend it."""

    reason = "UNAVAILABLE"


class BrokenInvariant(LetterlockError):
    """A bug: a state that the design rules out. Details stay in the log."""

    reason = "INTERNAL"
