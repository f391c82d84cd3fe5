"""Messages that the relay has and no device has taken yet: kept to be encrypted again for a device
that could not decrypt them.

    keep ──▶ kept ──receipt, time over, too many──▶ gone
               └── resent: one attempt more for a device

Knows no ratchet and no network.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from letterlock.device.rows import SENT, Rows

MAX_SENT = 1_000
"""Messages kept; of more, the oldest can no longer be asked for."""

_HEAD = struct.Struct(">16sQB")
_DEVICE = struct.Struct(">BB")


@dataclass(slots=True)
class SentMessage:
    """To whom it went, when it dies (milliseconds since 1970), how often again to which device."""

    account_id: bytes
    expire_ms: int
    plaintext: bytes = field(repr=False)
    attempts: dict[int, int] = field(default_factory=dict)

    def to_row(self) -> bytes:
        """Account, expiry, count of devices, each with its attempts, plaintext."""
        head = _HEAD.pack(self.account_id, self.expire_ms, len(self.attempts))
        devices = b"".join(_DEVICE.pack(*each) for each in self.attempts.items())
        return head + devices + self.plaintext

    @classmethod
    def from_row(cls, row: bytes) -> SentMessage:
        """Undo to_row."""
        account_id, expire_ms, count = _HEAD.unpack_from(row)
        end = _HEAD.size + count * _DEVICE.size
        attempts = dict(_DEVICE.iter_unpack(row[_HEAD.size : end]))
        return cls(account_id, expire_ms, row[end:], attempts)


class Sent:
    """The kept messages of one device, oldest first."""

    def __init__(self, rows: Rows, stored: dict[bytes, bytes]) -> None:
        """`stored`: all rows of the device."""
        self._rows = rows
        names = sorted(name for name in stored if name.startswith(SENT))
        self._kept = {name[len(SENT) :]: SentMessage.from_row(stored[name]) for name in names}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, message_id: bytes, message: SentMessage, now_ms: int) -> None:
        """The relay has it. Whatever is too old or too much goes."""
        self._kept[message_id] = message
        self._rows.put(SENT + message_id, message.to_row())
        while self._kept:
            oldest = next(iter(self._kept))
            if len(self._kept) <= MAX_SENT and self._kept[oldest].expire_ms > now_ms:
                break
            self.forget(oldest)

    def get(self, message_id: bytes, account_id: bytes, now_ms: int) -> SentMessage | None:
        """A message that went to this account. One that went to another is nobody's business."""
        message = self._kept.get(message_id)
        if message is None or message.account_id != account_id or message.expire_ms <= now_ms:
            return None
        return message

    def resent(self, message_id: bytes, device: int) -> int:
        """Count one attempt more for a device; gives its number."""
        message = self._kept[message_id]
        attempt = message.attempts[device] = message.attempts.get(device, 0) + 1
        self._rows.put(SENT + message_id, message.to_row())
        return attempt

    def forget(self, message_id: bytes) -> None:
        """A device has it, or none ever will."""
        if self._kept.pop(message_id, None) is not None:
            self._rows.delete(SENT + message_id)
