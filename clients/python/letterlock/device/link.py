"""How a second device joins an account: what the first device tells it, outside of the relay.

The text holds the account's private identity key and a link token: show it as a code to scan,
never send it over the network it is meant to protect.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from letterlock.errors import InvalidRequest

_VERSION = b"\x01"
_IDENTITY_BYTES = 32


@dataclass(frozen=True, slots=True)
class DeviceLink:
    """Good for one device, until `expire_time` of the relay's answer."""

    token: str = field(repr=False)
    phone_number: str = field(repr=False)
    identity_private: bytes = field(repr=False)

    def to_text(self) -> str:
        """About 120 characters of URL-safe base64. Secret."""
        names = f"{self.phone_number}\n{self.token}".encode()
        return base64.urlsafe_b64encode(_VERSION + self.identity_private + names).decode()

    @classmethod
    def from_text(cls, text: str) -> DeviceLink:
        """Read what to_text() made. Raises InvalidRequest, which does not show it."""
        try:
            raw = base64.urlsafe_b64decode(text.encode())
            number, token = raw[1 + _IDENTITY_BYTES :].decode().split("\n")
        except (ValueError, binascii.Error):
            raw, number, token = b"", "", ""
        if raw[:1] != _VERSION or not token:
            raise InvalidRequest(
                "not a device link", field="link", limit="as the first device made it"
            )
        return cls(token, number, raw[1 : 1 + _IDENTITY_BYTES])
