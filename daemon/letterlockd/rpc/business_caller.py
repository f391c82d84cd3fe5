"""Who calls the gateway, and with which business number they may act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from letterlockd.errors import BrokenInvariant
from letterlockd.model.ids import AccountId
from letterlockd.model.sender import Sender
from letterlockd.registry.principals import Principal
from letterlockd.rpc.caller import current_caller

__all__ = ["Senders", "calling_principal", "calling_sender"]


class Senders(Protocol):
    """The registry, as far as it is needed for streams and messages."""

    async def sender(self, principal: Principal, business_number: str) -> Sender:
        """The number, if the caller may act for it; raises `InvalidField` or
        `Forbidden`."""
        ...

    def watch_number(self, account: AccountId, removed: Callable[[], None]) -> Callable[[], None]:
        """Call `removed` once when the number is taken away. Returns what ends the watch."""
        ...


def calling_principal() -> Principal:
    """The caller: the gateway authenticates nobody else."""
    caller = current_caller()
    if not isinstance(caller, Principal):
        raise BrokenInvariant("the gateway's callers are principals")
    return caller


async def calling_sender(senders: Senders, business_number: str) -> Sender:
    """The number that the caller names; raises `InvalidField` or `Forbidden`."""
    return await senders.sender(calling_principal(), business_number)
