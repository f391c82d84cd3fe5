"""What a relay does first when its store has gone back (see `store.history`).

One-time pre-keys that were handed out since the copy was made are in the directory again; handed
out twice, the second first message would not open. All are withdrawn: devices and gateways see the
empty stock and upload new ones, and bundles have the last-resort key meanwhile.

Mailboxes need nothing: what is delivered again is known to its receiver by its message id.
"""

from __future__ import annotations

from letterlockd.relay.tables import ONE_TIME, ONE_TIME_KYBER, PRE_KEYS
from letterlockd.store.history import History
from letterlockd.store.port import Delete, Store

__all__ = ["settle"]

_STEP = 1_000
_KIND_AT = 8


async def settle(store: Store, history: History) -> None:
    """Draw the consequences of a restore, unless that is done. Raises what the store raises."""
    after = b""
    while not history.is_settled:
        rows = await store.scan(PRE_KEYS, after=after, limit=_STEP)
        once = [key for key, _ in rows if key[_KIND_AT] in (ONE_TIME, ONE_TIME_KYBER)]
        await store.commit([[Delete(PRE_KEYS, key) for key in once]])
        if len(rows) < _STEP:
            await history.settle()
        else:
            after = rows[-1][0]
