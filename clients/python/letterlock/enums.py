"""Names of enum values, for people and for callers who match on them."""

from __future__ import annotations

from typing import Any, Protocol


class _Enum(Protocol):
    def Name(self, number: Any) -> str: ...  # noqa: N802 - protobuf's


def enum_name(enum: _Enum, number: int, prefix: str) -> str:
    """The name of an enum value without the enum's prefix; of a value of a newer peer its
    number."""
    try:
        return enum.Name(number).removeprefix(prefix)
    except ValueError:
        return str(number)
