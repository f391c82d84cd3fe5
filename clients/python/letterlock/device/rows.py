"""The rows of a device's state: their names, their bytes, and the changes not yet committed.

    self                              who this device is, JSON
    key/     kind, id (4)             private pre-key: ms (8) | private | signature; the time when
                                      it was made; signed and last-resort: published
    next key id                       the first key id never given to a key (4)
    unpublished                       PreKeyUpload: signed and last-resort key that the directory
                                      may not have yet
    session/ account (16), device     session record of tripleratchet
    waiting/ account (16), device     ms (8): first message sent since one came from the device
    peer/    account (16)             the identity key last seen, 33 bytes
    number/  E.164                    account (16)
    out/     submission id (16)       u32 length, Submission, Payload: until the relay has answered
    sent/    message id (16)          see sent.py: until a device has taken it
    in/      sequence (8)             sender (16), device (1), Payload: until the app has acked
    seen/    sender (16), message id  inbound messages that came before
    used/    hash (16)                uses of last-resort keys

Numbers are big-endian. Knows no file and no network. "self" carries the version of all this.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from letterlock.errors import DeviceError

VERSION = 1

SELF = b"self"
NEXT_KEY_ID = b"next key id"
UNPUBLISHED = b"unpublished"
KEY, SESSION, PEER, NUMBER = b"key/", b"session/", b"peer/", b"number/"
WAITING = b"waiting/"
OUT, IN, SEEN, USED, SENT = b"out/", b"in/", b"seen/", b"used/", b"sent/"


class Rows:
    """Changes that wait for the next commit, in the order they were made."""

    def __init__(self) -> None:
        self._changes: dict[bytes, bytes | None] = {}

    def __bool__(self) -> bool:
        return bool(self._changes)

    def put(self, name: bytes, value: bytes) -> None:
        """Write a row."""
        self._changes[name] = value

    def delete(self, name: bytes) -> None:
        """Delete a row, if it is there."""
        self._changes[name] = None

    def take(self) -> dict[bytes, bytes | None]:
        """All changes so far; they are the caller's to commit now."""
        changes, self._changes = self._changes, {}
        return changes


@dataclass(frozen=True, slots=True)
class Account:
    """Who this device is. `identity_private` is shared by all devices of the account."""

    account_id: bytes
    device_id: int
    registration_id: int
    phone_number: str = field(repr=False)
    credential: str = field(repr=False)
    identity_private: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """The row `self`."""
        return json.dumps(
            {
                "version": VERSION,
                "account_id": self.account_id.hex(),
                "device_id": self.device_id,
                "registration_id": self.registration_id,
                "phone_number": self.phone_number,
                "credential": self.credential,
                "identity_private": self.identity_private.hex(),
            }
        ).encode()

    @classmethod
    def from_bytes(cls, row: bytes) -> Account:
        """Read the row `self`. Raises DeviceError."""
        try:
            values = json.loads(row)
            if values["version"] != VERSION:
                raise DeviceError("unknown version", field="store", limit=f"version {VERSION}")
            return cls(
                bytes.fromhex(values["account_id"]),
                int(values["device_id"]),
                int(values["registration_id"]),
                str(values["phone_number"]),
                str(values["credential"]),
                bytes.fromhex(values["identity_private"]),
            )
        except (KeyError, ValueError, TypeError):
            raise DeviceError("unreadable", field="store", limit="a device's state") from None


def new_message_id(now_ms: int, random: Callable[[int], bytes]) -> bytes:
    """A message id: UUID version 7, 16 bytes."""
    tail = bytearray(random(10))
    tail[0] = 0x70 | (tail[0] & 0x0F)
    tail[2] = 0x80 | (tail[2] & 0x3F)
    return now_ms.to_bytes(6, "big") + bytes(tail)


def ratchet_name(account_id: bytes) -> str:
    """An account as the name of a ratchet address (facts/signal-session.md section 4)."""
    return str(uuid.UUID(bytes=account_id))
