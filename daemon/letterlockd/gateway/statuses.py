"""How the status of a sent message moves (I7): only forward, and never out of an end.

    ACCEPTED ──▶ SENT ──▶ DELIVERED ──▶ READ
       │           │
       └─────┬─────┘
             ▼
      FAILED, EXPIRED

Receipts come late, repeated and out of order; what would move a status back, or out of READ,
FAILED or EXPIRED, changes nothing. Pure: it knows neither messages nor stores.
"""

from __future__ import annotations

from typing import TypeAlias

from letterlock.v1 import messaging_pb2 as api

__all__ = ["Status", "advance"]

Status: TypeAlias = api.MessageStatus.ValueType

_ACCEPTED = api.MESSAGE_STATUS_ACCEPTED
_SENT = api.MESSAGE_STATUS_SENT
_DELIVERED = api.MESSAGE_STATUS_DELIVERED
_READ = api.MESSAGE_STATUS_READ
_FAILED = api.MESSAGE_STATUS_FAILED
_EXPIRED = api.MESSAGE_STATUS_EXPIRED

_FORWARD: dict[Status, frozenset[Status]] = {
    _ACCEPTED: frozenset({_SENT, _DELIVERED, _READ, _FAILED, _EXPIRED}),
    _SENT: frozenset({_DELIVERED, _READ, _FAILED, _EXPIRED}),
    _DELIVERED: frozenset({_READ}),
    _READ: frozenset(),
    _FAILED: frozenset(),
    _EXPIRED: frozenset(),
}


def advance(current: Status, new: Status) -> Status:
    """The status after news of `new`: `new` where that is a step forward, else `current`."""
    return new if new in _FORWARD[current] else current
