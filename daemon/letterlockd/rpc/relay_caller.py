"""Who calls the relay, and whether this kind of caller may."""

from __future__ import annotations

from letterlockd.errors import Forbidden
from letterlockd.relay.credentials import Caller, DeviceCaller, GatewayCaller
from letterlockd.rpc.caller import current_caller

__all__ = ["calling", "calling_device", "calling_gateway"]


def calling() -> Caller:
    """The caller, device or gateway."""
    caller = current_caller()
    if not isinstance(caller, DeviceCaller | GatewayCaller):
        raise Forbidden("devices and gateways only")
    return caller


def calling_device() -> DeviceCaller:
    """The caller; `Forbidden` unless it is a device."""
    caller = calling()
    if not isinstance(caller, DeviceCaller):
        raise Forbidden("devices only")
    return caller


def calling_gateway() -> GatewayCaller:
    """The caller; `Forbidden` unless it is a gateway."""
    caller = calling()
    if not isinstance(caller, GatewayCaller):
        raise Forbidden("gateways only")
    return caller
