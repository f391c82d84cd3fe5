"""Every number of the post-quantum ratchet, each with what goes wrong on either side of it.

Source: facts/spqr.md sections 1.1, 2, 6 and 7.5. The peer enforces the same ones. This module knows
no code.
"""

from __future__ import annotations

VERSION = 1
"""The one version spoken; 0 means none."""

CHUNK_SIZE = 32
"""Bytes of a chunk: 16 words of 16 bits."""

MAX_CHUNK_INDEX = 0xFFFF
"""A chunk index is an element of GF(2^16); the sender's counter wraps around it."""

MAX_INDEX = 0xFFFF_FFFF
"""Key indexes are unsigned 32-bit; at the last one a chain sends no more."""

MAX_KEPT_KEYS = 2_000
"""How far a message may be late: skipped keys behind the newest by more are refused. Lower loses
late messages, higher grows records."""

HEADER_SIZE, MAC_SIZE = 64, 32
EK_SIZE, CT1_SIZE, CT2_SIZE = 1152, 960, 128
"""The pieces of an ML-KEM-768 exchange as they travel; all MACs are whole."""

SEED_SIZE, ENCAPSULATION_SIZE = 64, 32
"""Randomness drawn: a key pair's seed, and the message of an encapsulation."""
