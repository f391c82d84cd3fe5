"""Bounds and times of the gateway's core, each with what goes wrong on either side."""

from __future__ import annotations

from dataclasses import dataclass

from letterlockd.sealing.keyring import DAY_MS

__all__ = ["GatewaySettings"]


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Handed in by the composition root.

    `max_in_hand`: admitted messages without an answer, over all streams. Lower starves the batches,
    higher only adds latency and memory (about 3 kB each).
    `max_outbox`: accepted messages that the relay has not taken. Beyond it sends are refused.
    `max_held`: accepted messages that wait for a confirmed identity key. Beyond it they fail.
    `max_unanswered`: submissions at the relay without an answer.
    `window`: items from the relay that are not acknowledged.
    `lane_batch`: messages worked by one job. Higher amortises the commit, lower the waiting.
    `expiry_seconds`: how often what is due is looked for.
    `recount_seconds`: how often the relay is asked how many one-time keys are left.
    `pre_key_rotation_ms`: age at which signed and last-resort pre-keys are replaced.
    `pre_key_grace_ms`: how long the replaced ones still open first contacts.
    `rotation_look_seconds`: how often it is looked which pre-keys are due.
    `stale_session_ms`: how long a session may be sent with while nothing comes back on it.
    """

    max_in_hand: int = 8_192
    max_outbox: int = 1_000_000
    max_held: int = 100_000
    max_unanswered: int = 2_048
    window: int = 2_048
    lane_batch: int = 256
    expiry_seconds: float = 5.0
    recount_seconds: float = 86_400.0
    pre_key_rotation_ms: int = 7 * DAY_MS
    pre_key_grace_ms: int = 30 * DAY_MS
    rotation_look_seconds: float = 600.0
    stale_session_ms: int = 30 * DAY_MS
