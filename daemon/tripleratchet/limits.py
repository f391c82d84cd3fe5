"""Every limit of the session layer, each with what goes wrong on either side of it.

Source: facts/signal-session.md section 12. Numbers the peer's client enforces too must stay
equal to it, or one side drops what the other still counts on. This module knows no code.
"""

MESSAGE_VERSION = 4
"""The only version new sessions have; 3 parses and is refused (no KEM in it)."""

OLDEST_PARSED_VERSION = 3
"""Versions below get their own verdict, so that a caller can tell an old peer from noise."""

MAX_FORWARD_JUMP = 25_000
"""How far one message may be ahead. Lower loses messages after an outage; higher lets one
forged message, whose MAC can only be checked afterwards, buy more hashing."""

MAX_SELF_JUMP = 1_000_000
"""The same for a session with oneself. The official client has no bound here; without one a
single forged counter costs hours of hashing."""

MAX_SKIPPED_SEEDS = 2_000
"""Kept per receiving chain, oldest dropped. Lower loses late messages, higher grows records."""

MAX_RECEIVING_CHAINS = 5
"""Kept per session, oldest dropped: how many turns of the conversation a message may be late."""

MAX_ARCHIVED_SESSIONS = 40
"""Kept per record, oldest dropped: the peer may still use a session we have replaced, but each
one kept is one more trial decryption for a forged message."""

MAX_UNACKNOWLEDGED_SECONDS = 30 * 24 * 3600
"""Age of a never answered session up to which it may still send; then its pre-keys are gone."""

MAX_COUNTER = 0xFFFF_FFFF
"""Counters and ids are unsigned 32-bit on the wire."""

MAC_SIZE = 8
"""Bytes of HMAC-SHA-256 on the wire."""

MIN_DEVICE, MAX_DEVICE = 1, 127
"""Device numbers are one byte in the address binding."""

MIN_FINGERPRINT_ITERATIONS, MAX_FINGERPRINT_ITERATIONS = 2, 1_000_000
"""Outside, the official client refuses; below 2 nothing is stretched."""

DEFAULT_FINGERPRINT_ITERATIONS = 5_200
"""What the official apps use; other counts give numbers that never match theirs."""
