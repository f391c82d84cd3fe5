"""What a business calls its message: idempotency key and tag, sealed in status records and events.

    length of the key (1), key, tag ──day key, bound to the message──▶ sealed reference

Sealed once, with acceptance, and carried as it is into every event about the message, so a status
costs no seal. The day key is that of the day on which the last such event ends. Knows no store.
"""

from __future__ import annotations

from typing import NamedTuple

from letterlockd.model.ids import MessageId
from letterlockd.sealing.errors import SealBroken
from letterlockd.sealing.keyring import DayKey
from letterlockd.sealing.seal import Cipher

__all__ = ["ReferenceKey", "open_reference"]

_CONTEXT = b"reference"


class ReferenceKey(NamedTuple):
    """A day key made ready for many references; `id` is stored beside what it seals."""

    id: bytes
    cipher: Cipher

    @classmethod
    def of(cls, day_key: DayKey) -> ReferenceKey:
        """Make it ready."""
        return cls(day_key.id, Cipher(day_key.key))

    def seal(self, message_id: MessageId, idempotency_key: str, caller_tag: bytes) -> bytes:
        """Seal a key of at most 255 ASCII characters, and a tag."""
        key = idempotency_key.encode("ascii")
        return self.cipher.seal(bytes((len(key),)) + key + caller_tag, message_id + _CONTEXT)


def open_reference(cipher: Cipher, message_id: bytes, sealed: bytes) -> tuple[str, bytes]:
    """Idempotency key and tag. Raises `SealBroken`."""
    opened = cipher.unseal(sealed, message_id + _CONTEXT)
    end = 1 + opened[0] if opened else 0
    if not 1 < end <= len(opened):
        raise SealBroken("a sealed reference has a key and a tag")
    return opened[1:end].decode("ascii", "replace"), opened[end:]
