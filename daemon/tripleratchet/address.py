"""Who a session is with: a name and a device, and how both enter a message's MAC.

A name may be anything; only service ids (ACI, PNI) can be bound into a message.
This module knows no key and no session. Source: facts/signal-session.md section 4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .errors import InvalidAddress
from .limits import MAX_DEVICE, MIN_DEVICE

_ACI, _PNI = b"\x00", b"\x01"
_SERVICE_ID = re.compile(
    r"(PNI:)?([0-9a-fA-F]{8})-([0-9a-fA-F]{4})-([0-9a-fA-F]{4})-([0-9a-fA-F]{4})-([0-9a-fA-F]{12})"
)


@dataclass(frozen=True, slots=True)
class Address:
    """One device of one user. `name` may be a phone number, so it stays out of the repr."""

    name: str = field(repr=False)
    device: int

    def __post_init__(self) -> None:
        if not MIN_DEVICE <= self.device <= MAX_DEVICE:
            raise InvalidAddress(f"device must be {MIN_DEVICE} to {MAX_DEVICE}")


def service_id(name: str) -> bytes | None:
    """Kind byte and 16 UUID bytes of a service id's text; None for any other name."""
    match = _SERVICE_ID.fullmatch(name)
    if match is None:
        return None
    return (_PNI if match[1] else _ACI) + bytes.fromhex("".join(match.group(2, 3, 4, 5, 6)))


def binding(sender: Address, receiver: Address) -> bytes | None:
    """The 36 bytes of a message's `addresses` field; None unless both names are service ids."""
    from_id, to_id = service_id(sender.name), service_id(receiver.name)
    if from_id is None or to_id is None:
        return None
    return from_id + bytes([sender.device]) + to_id + bytes([receiver.device])


def same_account(one: Address, other: Address) -> bool:
    """Whether both are the same service id, device numbers aside."""
    first = service_id(one.name)
    return first is not None and first == service_id(other.name)
