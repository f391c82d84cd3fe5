"""Letterlock: the public contract and the Python SDK.

Names are loaded on first use (PEP 562): `import letterlock.content.v1.content_pb2` happens in
processes that have no use for gRPC, asyncio or the ratchet, and must not pay for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from letterlock.admin import AdminClient as AdminClient
    from letterlock.business import BusinessClient as BusinessClient
    from letterlock.business import Start as Start
    from letterlock.device import Device as Device
    from letterlock.device_store import FileStore as FileStore
    from letterlock.device_store import MemoryStore as MemoryStore
    from letterlock.errors import LetterlockError as LetterlockError
    from letterlock.events import Event as Event
    from letterlock.outgoing import OutgoingMessage as OutgoingMessage
    from letterlock.outgoing import SendResult as SendResult
    from letterlock.retry import RetryPolicy as RetryPolicy

_HOME = {
    "AdminClient": "admin",
    "BusinessClient": "business",
    "Device": "device",
    "Event": "events",
    "FileStore": "device_store",
    "LetterlockError": "errors",
    "MemoryStore": "device_store",
    "OutgoingMessage": "outgoing",
    "RetryPolicy": "retry",
    "SendResult": "outgoing",
    "Start": "business",
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
