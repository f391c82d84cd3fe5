"""Businesses as the operator sees them, and their checked inputs. Values only, no storage."""

from __future__ import annotations

from dataclasses import dataclass, field

from letterlockd.errors import Forbidden, InvalidField, NotFound
from letterlockd.model.ids import AccountId, BusinessId
from letterlockd.registry.principals import Principal

__all__ = [
    "DEFAULT_RETENTION_MS",
    "Business",
    "BusinessNumber",
    "TokenInfo",
    "check_label",
    "check_may_read",
    "check_name",
    "check_operator",
    "check_retention",
    "parse_business_id",
    "unknown_business",
]

MIN_RETENTION_MS = 5 * 60_000
"""Below this a message may die before a device that is in a pocket wakes."""

DEFAULT_RETENTION_MS = MAX_RETENTION_MS = 30 * 86_400_000
"""The hard ceiling of everything that belongs to a message (I4)."""

MAX_NAME_CHARS = 100


@dataclass(frozen=True, slots=True)
class BusinessNumber:
    """A registered number; the number stays out of the repr."""

    phone_number: str = field(repr=False)
    account_id: AccountId
    identity_key: bytes


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What may be told of a token. `revoke_ms` is None while it is in force."""

    token_id: str
    label: str
    create_ms: int
    revoke_ms: int | None


@dataclass(frozen=True, slots=True)
class Business:
    """A business with its numbers and tokens."""

    business_id: BusinessId
    display_name: str
    retention_ms: int
    create_ms: int
    hold_identity_changes: bool
    numbers: tuple[BusinessNumber, ...]
    tokens: tuple[TokenInfo, ...]


def check_name(name: str) -> None:
    """`InvalidField` unless `name` can be a display name."""
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise InvalidField("display_name", f"1 to {MAX_NAME_CHARS} printable characters")


def check_label(label: str) -> None:
    """`InvalidField` unless `label` can be a token's label."""
    if len(label) > MAX_NAME_CHARS or not label.isprintable():
        raise InvalidField("label", f"at most {MAX_NAME_CHARS} printable characters")


def check_retention(retention_ms: int) -> None:
    """`InvalidField` unless within 5 minutes to 30 days."""
    if not MIN_RETENTION_MS <= retention_ms <= MAX_RETENTION_MS:
        raise InvalidField("retention", "5 minutes to 30 days")


def parse_business_id(text: str) -> BusinessId:
    """The id of 32 characters of lower-case hex; `InvalidField` for anything else."""
    if len(text) != 32 or not set(text) <= set("0123456789abcdef"):
        raise InvalidField("business_id", "32 characters of lower-case hex")
    return BusinessId(bytes.fromhex(text))


def check_operator(principal: Principal) -> None:
    """`Forbidden` unless the operator calls."""
    if principal.business_id is not None:
        raise Forbidden("only the operator's token can do this")


def check_may_read(principal: Principal, business: BusinessId) -> None:
    """`Forbidden` unless the operator or the business itself calls; the same for a business that
    does not exist."""
    if principal.business_id not in (None, business):
        raise Forbidden("the token does not reach this business")


def unknown_business() -> NotFound:
    """Told to the operator alone."""
    return NotFound("there is no business with this id")
