"""Every bound of the relay, with what goes wrong on either side of it.

Plain values: the configuration is read by `config` and handed in; nothing here reads anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from letterlockd.pace import STEP

__all__ = ["DAY_MS", "MINUTE_MS", "Rate", "RelaySettings"]

MINUTE_MS = 60_000
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: `burst` at once, `per_second` for long."""

    burst: float
    per_second: float


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Settings of one relay. The defaults suit a service of some ten thousand users."""

    max_ttl_ms: int = 30 * DAY_MS
    """The hard ceiling of I4."""
    usage_kept_ms: int = 400 * DAY_MS
    """Counters outlive a yearly bill."""

    max_devices: int = 6
    verification_ms: int = 10 * MINUTE_MS
    verification_tries: int = 5
    """With six digits and 5 tries, one verification is guessed once in 200,000."""
    verifications_per_number: Rate = field(default_factory=lambda: Rate(3, 1 / 300))
    """Codes cost money and annoy; fewer than 3 leaves a user with a slow operator stuck."""
    verifications_in_all: Rate = field(default_factory=lambda: Rate(200, 20))
    """Bounds what a flood of invented numbers can cost."""
    link_ms: int = 10 * MINUTE_MS
    links_per_account: Rate = field(default_factory=lambda: Rate(6, 1 / 60))

    bundles_per_device: Rate = field(default_factory=lambda: Rate(100, 1))
    """Also what a stolen device can enumerate of the directory."""
    bundles_per_device_and_target: Rate = field(default_factory=lambda: Rate(10, 1 / 30))
    bundles_per_gateway: Rate = field(default_factory=lambda: Rate(50_000, 2_000))
    bundles_per_gateway_and_target: Rate = field(default_factory=lambda: Rate(60, 1))

    submissions_per_device: Rate = field(default_factory=lambda: Rate(200, 50))
    submissions_per_gateway: Rate | None = None

    max_window: int = 10_000
    default_window: int = 256
    max_unanswered: int = 8_192
    """Submissions of one stream in work; the stream is not read beyond."""
    max_refused: int = 8_192
    """Message ids of one stream that are to come again (see `refused_pairs`): four times what a
    gateway has open, some 1 MB. Beyond it the stream ends, and the order is the gateway's alone."""
    batch_seconds: float = 0.004
    """From one batch's start to the next one's at least. A quiet relay commits at once; a busy one
    gathers, because each frame and each commit costs as much as ten messages in them."""
    max_staged: int = 2_048
    """Submissions, and acknowledgements, of all streams that wait for the next batch; then one more
    frame of each may come. What that makes at most (256 x 9 and 10,000 x 3 changes more) is still
    one transaction of the store."""
    max_staged_bytes: int = 16 * 1024 * 1024

    device_frame_bytes: int = 128 * 1024
    """What a device that does not read can make the relay hold for it, and as much again in the
    transport."""
    gateway_frame_bytes: int = 1024 * 1024
    max_frame_items: int = 512

    device_mailbox_items: int = 10_000
    device_mailbox_bytes: int = 64 * 1024 * 1024
    gateway_mailbox_items: int = 500_000
    gateway_mailbox_bytes: int = 2 * 1024 * 1024 * 1024
    mailbox_full_retry_ms: int = 5 * MINUTE_MS

    cached_accounts: int = 50_000
    """Some 1 kB each; must exceed the devices that are connected at a time."""
    cached_buckets: int = 50_000

    sweep_seconds: float = 1.0
    sweep_records: int = STEP
