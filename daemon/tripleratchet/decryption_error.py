"""Decryption-error messages: what a device tells the sender of a message that it cannot decrypt.

    content    c0 | protobuf whose field 8 is the error | 80     not encrypted, nothing proves it
    error      1 bytes ratchet key, 2 uint64 timestamp, 3 uint32 device

The ratchet key is the failed message's: its sender archives the session that still sends under it,
and so starts a new one. Anybody on the way can write such a message; what it may cause is for the
receiver to bound. Knows no session. Source: facts/signal-session.md section 8, and the verdicts of
the official client.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from . import keys
from .errors import (
    CiphertextMessageTooShort,
    InvalidMessage,
    InvalidProtobufEncoding,
    RatchetError,
    UnrecognizedCiphertextVersion,
)
from .messages import CiphertextMessage, MessageType, PreKeySignalMessage, SignalMessage
from .wire import BYTES, VARINT, bytes_field, read_fields, uint_field

_FIELDS = {1: BYTES, 2: VARINT, 3: VARINT}
_CONTENT_FIELDS = {8: BYTES}
_START, _END = b"\xc0", b"\x80"
_UINT64 = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class DecryptionError:
    """One message could not be decrypted. `ratchet_key` (33 bytes, public) is None where the
    message could not even be read; `timestamp_ms` and `device_id` are of the failed message."""

    ratchet_key: bytes | None = field(repr=False)
    timestamp_ms: int
    device_id: int

    @classmethod
    def of(
        cls, message: CiphertextMessage, *, timestamp_ms: int, device_id: int
    ) -> DecryptionError:
        """The error for a message that `device_id` sent."""
        return cls(_ratchet_key(message), timestamp_ms, device_id)

    @classmethod
    def from_bytes(cls, data: bytes) -> DecryptionError:
        """Read to_bytes. Raises an EncodingError."""
        fields = read_fields(data, _FIELDS, _UINT64)
        key, timestamp, device = fields.get(1), fields.get(2), fields.get(3, 0)
        if timestamp is None:
            raise InvalidProtobufEncoding("required field missing: 2")
        parsed = None if key is None else keys.parse_public(key)  # type: ignore[arg-type]
        return cls(parsed, timestamp, device)  # type: ignore[arg-type]

    def to_bytes(self) -> bytes:
        """As the official client's DecryptionErrorMessage.serialize()."""
        key = b"" if self.ratchet_key is None else bytes_field(1, self.ratchet_key)
        return key + uint_field(2, self.timestamp_ms) + uint_field(3, self.device_id)


def plaintext_content(content: bytes) -> bytes:
    """The body of a type 8 message around a protobuf with the error in field 8."""
    return _START + content + _END


def read_plaintext_content(body: bytes) -> bytes:
    """Undo plaintext_content. Raises an EncodingError."""
    if not body:
        raise CiphertextMessageTooShort("empty message")
    if body[:1] != _START:
        raise UnrecognizedCiphertextVersion("not plaintext content")
    if len(body) < 2 or body[-1:] != _END:
        raise InvalidProtobufEncoding("plaintext content without its end")
    return body[1:-1]


def decryption_error_of(body: bytes) -> DecryptionError:
    """The error in the body of a type 8 message. Raises InvalidMessage or an EncodingError."""
    error = read_fields(read_plaintext_content(body), _CONTENT_FIELDS).get(8)
    if error is None:
        raise InvalidMessage("plaintext content without a decryption error")
    return DecryptionError.from_bytes(error)  # type: ignore[arg-type]


def _ratchet_key(message: CiphertextMessage) -> bytes | None:
    try:
        if message.type == MessageType.PRE_KEY:
            return PreKeySignalMessage.parse(message.body).message.ratchet_key
        if message.type == MessageType.SIGNAL:
            return SignalMessage.parse(message.body).ratchet_key
    except RatchetError:
        return None
    return None
