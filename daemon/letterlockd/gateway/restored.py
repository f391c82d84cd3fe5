"""What a gateway does first when its store has gone back (see `store.history`).

    every business number ──▶ its ids skip those that may be taken, its pre-keys are in doubt
                          ──▶ settled: `rotation` makes new keys and withdraws the others

Nothing else needs a walk: conversations and outbox rows carry the generation in which they were
written, and are retired or encrypted again when they are next used. Repeating it after a crash
skips more ids, which costs nothing.
"""

from __future__ import annotations

from letterlockd.errors import BrokenInvariant
from letterlockd.gateway.tables import NUMBERS
from letterlockd.model.ids import ID_BYTES
from letterlockd.records.v1.gateway_pb2 import NumberRecord
from letterlockd.store.history import History
from letterlockd.store.port import Check, Put, Store

__all__ = ["DOUBTFUL_IDS", "settle"]

DOUBTFUL_IDS = 1 << 20
"""Ids that may have been given out since the copy was made: 600 years of turn-overs, or a
million first contacts of one number. More restores than 4,000 would use up an id's 32 bits."""

_STEP = 500


async def settle(store: Store, history: History) -> None:
    """Draw the consequences of a restore, unless that is done. Raises what the store raises."""
    after = b""
    while not history.is_settled:
        rows = await store.scan(NUMBERS, after=after, limit=_STEP)
        outcomes = await store.commit(
            [
                [Check(NUMBERS, key, row.version), Put(NUMBERS, key, _in_doubt(row.value))]
                for key, row in rows
                if len(key) == ID_BYTES
            ]
        )
        if any(outcomes):
            raise BrokenInvariant("a number changed before the gateway was open")
        if len(rows) < _STEP:
            await history.settle()
        else:
            after = rows[-1][0]


def _in_doubt(value: bytes) -> bytes:
    record = NumberRecord.FromString(value)
    record.next_pre_key_id += DOUBTFUL_IDS
    record.next_kyber_pre_key_id += DOUBTFUL_IDS
    record.keys_in_doubt = True
    return record.SerializeToString()
