"""The gateway as a client of a relay.

    Uplink ── unary calls: bundles, pre-keys, registration (`calls`)
      └────── one Connect stream, opened again after each loss (`link`, `backoff`)
                 └── submissions in flight and acks (`flight`, pure)

It carries opaque submissions and items, and knows nothing of conversations, ratchets or stores.
"""

from __future__ import annotations

from letterlockd.uplink.calls import RelayCalls, RelayUnavailable
from letterlockd.uplink.channel import open_channel
from letterlockd.uplink.flight import Answered, Flight
from letterlockd.uplink.uplink import Traffic, Uplink

__all__ = [
    "Answered",
    "Flight",
    "RelayCalls",
    "RelayUnavailable",
    "Traffic",
    "Uplink",
    "open_channel",
]
