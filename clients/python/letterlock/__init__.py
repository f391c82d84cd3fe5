"""Letterlock: the public contract and the Python SDK.

Names are loaded on first use (PEP 562): `import letterlock.content.v1.content_pb2` happens in
processes that have no use for gRPC, asyncio or the ratchet, and must not pay for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from letterlock.business.admin import AdminClient as AdminClient
    from letterlock.business.client import BusinessClient as BusinessClient
    from letterlock.business.client import Start as Start
    from letterlock.business.events import Event as Event
    from letterlock.business.outgoing import OutgoingMessage as OutgoingMessage
    from letterlock.business.outgoing import SendResult as SendResult
    from letterlock.device.device import Device as Device
    from letterlock.device.store import FileStore as FileStore
    from letterlock.device.store import MemoryStore as MemoryStore
    from letterlock.errors import LetterlockError as LetterlockError
    from letterlock.retry import RetryPolicy as RetryPolicy

_HOME = {
    "AdminClient": "business.admin",
    "BusinessClient": "business.client",
    "Device": "device.device",
    "Event": "business.events",
    "FileStore": "device.store",
    "LetterlockError": "errors",
    "MemoryStore": "device.store",
    "OutgoingMessage": "business.outgoing",
    "RetryPolicy": "retry",
    "SendResult": "business.outgoing",
    "Start": "business.client",
}

__all__ = [
    "AdminClient",
    "BusinessClient",
    "Device",
    "Event",
    "FileStore",
    "LetterlockError",
    "MemoryStore",
    "OutgoingMessage",
    "RetryPolicy",
    "SendResult",
    "Start",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOME:
        raise AttributeError(f"module 'letterlock' has no attribute {name!r}")
    value: object = getattr(import_module(f"letterlock.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
