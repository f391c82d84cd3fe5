"""Who is calling: set by the interceptor for the time of one call, read by servicers.

Knows nothing of tokens; the value is whatever the role's authenticator answered (a `Principal` at
the gateway, a device or gateway at the relay). Tasks that a servicer starts inherit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from letterlockd.errors import BrokenInvariant

__all__ = ["calling_as", "current_caller"]

_caller: ContextVar[object] = ContextVar("letterlock_caller")


def current_caller() -> object:
    """The authenticated caller of this call. `BrokenInvariant` where authentication did not run:
    a method listed as open must not ask."""
    try:
        return _caller.get()
    except LookupError:
        raise BrokenInvariant("an unauthenticated call asked for its caller") from None


@contextmanager
def calling_as(caller: object) -> Iterator[None]:
    """Make `caller` the caller within the block."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)
