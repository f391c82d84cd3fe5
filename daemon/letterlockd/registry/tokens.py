"""The text form of bearer tokens and what is kept of them. Pure.

    ll.<token id>.<secret>     token id: 16 characters of lower-case hex, or "operator"
                               secret: 32 random bytes in base64url, 43 characters, of which
                               the last has two bits to spare: they are 0

Only SHA-256 of the secret is kept. A plain hash is enough: the secret has 256 random bits, so
there is nothing to guess, unlike a password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from letterlockd.errors import Unauthenticated

__all__ = ["OPERATOR", "Bearer", "matches", "mint", "parse", "unknown_token"]

OPERATOR = "operator"
"""The token id of the operator's token."""

TOKEN_ID_BYTES = 8
_SECRET_BYTES = 32
_FORM = re.compile(r"ll\.(operator|[0-9a-f]{16})\.([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])")
"""The last character in full, or each secret would have four spellings."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token taken apart: its public id and the digest (32 bytes) of its secret."""

    token_id: str
    digest: bytes = field(repr=False)


def mint(random: Callable[[int], bytes], token_id: str | None = None) -> tuple[str, Bearer]:
    """A new token's text, to be shown once, and what to keep of it."""
    token_id = token_id or random(TOKEN_ID_BYTES).hex()
    secret = random(_SECRET_BYTES)
    text = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    return f"ll.{token_id}.{text}", Bearer(token_id, hashlib.sha256(secret).digest())


def parse(text: str) -> Bearer:
    """Take a token apart; `Unauthenticated` when it has another form."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise unknown_token()
    token_id, secret = form.groups()
    decoded = base64.urlsafe_b64decode(secret + "=")
    return Bearer(token_id, hashlib.sha256(decoded).digest())


def matches(bearer: Bearer, digest: bytes) -> bool:
    """Whether the secret is the one that `digest` was made from; takes the same time either way."""
    return hmac.compare_digest(bearer.digest, digest)


def unknown_token() -> Unauthenticated:
    """The one answer to malformed, unknown, wrong and revoked tokens: which, is not told."""
    return Unauthenticated("the token is not known or was revoked")
