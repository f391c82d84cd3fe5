"""Puts a caller's seconds into a Duration, checked: no float of a caller reaches protobuf unseen.

Knows no message.
"""

from __future__ import annotations

from google.protobuf import duration_pb2

from letterlock.errors import InvalidRequest

MOST_SECONDS = 315_576_000_000
"""What a Duration can hold, some 10,000 years. Where the contract has a lower limit, the gateway
refuses what is above it."""


def set_seconds(
    duration: duration_pb2.Duration,
    seconds: float,
    *,
    field: str,
    least: float = 0,
    most: float = MOST_SECONDS,
) -> None:
    """Fill `duration`. Raises InvalidRequest as `check_seconds`."""
    check_seconds(seconds, field=field, least=least, most=most)
    duration.FromNanoseconds(round(seconds * 1e9))


def check_seconds(seconds: float, *, field: str, least: float, most: float) -> None:
    """Raises InvalidRequest for what is not from `least` to `most`; NaN never is."""
    if not least <= seconds <= most:
        limit = f"{least:.12g} to {most:.12g} s"
        raise InvalidRequest("not a usable time", field=field, limit=limit)
