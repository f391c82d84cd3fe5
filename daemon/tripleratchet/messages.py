"""The two ciphertext messages on the wire: SignalMessage (type 2) and PreKeySignalMessage (3).

    SignalMessage          version || protobuf || mac(8)
    PreKeySignalMessage    version || protobuf, which holds a whole SignalMessage

Parses and builds bytes; the MAC is over bytes as received, never over a re-encoding. Knows no
session and no secret but the MAC key it is handed. Source: facts/signal-session.md section 8.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from . import keys
from .errors import (
    CiphertextMessageTooShort,
    InvalidMessage,
    InvalidProtobufEncoding,
    LegacyCiphertextVersion,
    UnrecognizedCiphertextVersion,
)
from .limits import MAC_SIZE, MESSAGE_VERSION, OLDEST_PARSED_VERSION
from .primitives import mac
from .wire import BYTES, VARINT, bytes_field, read_fields, uint_field, varint

_VERSION_BYTE = bytes([MESSAGE_VERSION << 4 | MESSAGE_VERSION])
_CANONICAL_START = b"\x44\x0a\x21\x05"
_SHORTEST = 48  # so that no look-up below runs off the end
_VERSION = MESSAGE_VERSION
_SIGNAL_FIELDS = {1: BYTES, 2: VARINT, 3: VARINT, 4: BYTES, 5: BYTES, 6: BYTES}
_PRE_KEY_FIELDS = {
    **dict.fromkeys((1, 5, 6, 7), VARINT),
    **dict.fromkeys((2, 3, 4, 8), BYTES),
}


class MessageType(IntEnum):
    """The number the transport carries beside the bytes; the bytes do not say it."""

    SIGNAL = 2
    PRE_KEY = 3


class CiphertextMessage(NamedTuple):
    """One encrypted message, ready for the transport: `type` 2 or 3, and its bytes."""

    type: int
    body: bytes

    def __repr__(self) -> str:
        return f"CiphertextMessage(type={self.type})"


class SignalMessage(NamedTuple):
    """A parsed ratchet message; `authenticated` is what its MAC covers, as received."""

    version: int
    ratchet_key: bytes
    counter: int
    ciphertext: bytes
    pq_ratchet: bytes
    addresses: bytes | None
    authenticated: bytes
    mac: bytes

    def __repr__(self) -> str:
        return keys.hidden(self)

    @classmethod
    def parse(cls, data: bytes) -> SignalMessage:
        """Read the bytes of a type 2 message. Raises an EncodingError."""
        if len(data) <= MAC_SIZE:
            raise CiphertextMessageTooShort(f"message has at most {MAC_SIZE} bytes")
        parts = _read_canonical(data, len(data) - MAC_SIZE)
        if parts is None:
            parts = _read_any(data[:-MAC_SIZE])
        return cls(*parts, data[:-MAC_SIZE], data[-MAC_SIZE:])

    def verify(self, mac_key: bytes, identities: bytes) -> bool:
        """Whether the MAC is right; `identities` are sender's and receiver's keys (66 bytes)."""
        expected = _mac(mac_key, identities, self.authenticated)
        return hmac.compare_digest(expected, self.mac)


_Parts = tuple[int, bytes, int, bytes, bytes, bytes | None]
"""Version, ratchet key, counter, ciphertext, post-quantum bytes, addresses."""


def _read_canonical(data: bytes, end: int) -> _Parts | None:
    """The form every client writes after its first answer, read in one pass; None for any other
    form, which _read_any reads with the verdicts that damage deserves."""
    if data[:4] != _CANONICAL_START or end < _SHORTEST or data[36] != 0x10:
        return None
    counter, at = _small(data, 37)
    if data[at] != 0x18:
        return None
    _, at = _small(data, at + 1)
    if data[at] != 0x22:
        return None
    size, start = _small(data, at + 1)
    at = start + size
    if at >= end or data[at] != 0x2A or data[at + 1] >= 0x80 or at + 2 + data[at + 1] != end:
        return None
    return _VERSION, data[3:36], counter, data[start:at], data[at + 2 : end], None


def _small(data: bytes, at: int) -> tuple[int, int]:
    """A varint of one or two bytes; of a longer one, something that fails the next check."""
    low = data[at]
    if low < 0x80:
        return low, at + 1
    high = data[at + 1]
    return (low & 0x7F | high << 7, at + 2) if high < 0x80 else (0, 0)


def _read_any(data: bytes) -> _Parts:
    version = _version(data)
    fields = read_fields(data[1:], _SIGNAL_FIELDS)
    get = fields.get
    ratchet_key, counter, ciphertext = get(1), get(2), get(4)
    if ratchet_key is None or counter is None or ciphertext is None:
        raise InvalidProtobufEncoding("required field missing: 1, 2 or 4")
    # read_fields has checked the wire type of each.
    found = (counter, ciphertext, get(5, b""), get(6))
    return version, keys.parse_public(ratchet_key), *found  # type: ignore[return-value,arg-type]


def build_signal_message(
    mac_key: bytes,
    identities: bytes,
    *,
    ratchet_key: bytes,
    counter: int,
    previous_counter: int,
    ciphertext: bytes,
    pq_ratchet: bytes,
    addresses: bytes | None,
) -> bytes:
    """The bytes of a type 2 message, MAC included; an empty `pq_ratchet` is left out.

    `identities` are the sender's and the receiver's key, 33 bytes each.
    """
    # Tags are constants below 0x80; counter and previous counter are written even when 0.
    authenticated = b"\x44\x0a\x21%b\x10%b\x18%b\x22%b%b%b%b" % (
        ratchet_key,
        varint(counter),
        varint(previous_counter),
        varint(len(ciphertext)),
        ciphertext,
        b"\x2a" + varint(len(pq_ratchet)) + pq_ratchet if pq_ratchet else b"",
        b"" if addresses is None else bytes_field(6, addresses),
    )
    return authenticated + _mac(mac_key, identities, authenticated)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class PreKeySignalMessage:
    """A parsed first message: what the receiver needs to agree on the session, and `message`."""

    version: int
    registration_id: int
    pre_key_id: int | None
    signed_pre_key_id: int
    kyber_pre_key_id: int | None
    kyber_ciphertext: bytes | None
    base_key: bytes
    identity_key: bytes
    message: SignalMessage

    @classmethod
    def parse(cls, data: bytes) -> PreKeySignalMessage:
        """Read the bytes of a type 3 message. Raises an EncodingError or InvalidMessage."""
        if not data:
            raise CiphertextMessageTooShort("empty message")
        version = _version(data)
        fields = read_fields(data[1:], _PRE_KEY_FIELDS)
        if any(fields.get(number) is None for number in (2, 3, 4, 6)):
            raise InvalidProtobufEncoding("required field missing: 2, 3, 4 or 6")
        base_key = keys.parse_public(fields[2])  # type: ignore[arg-type]
        identity_key = keys.parse_public(fields[3])  # type: ignore[arg-type]
        if (7 in fields) != (8 in fields) or (version == MESSAGE_VERSION and 7 not in fields):
            raise InvalidMessage("pre-key message without its two Kyber fields")
        return cls(
            version,
            fields.get(5, 0),  # type: ignore[arg-type]
            fields.get(1),  # type: ignore[arg-type]
            fields[6],  # type: ignore[arg-type]
            fields.get(7),  # type: ignore[arg-type]
            fields.get(8),  # type: ignore[arg-type]
            base_key,
            identity_key,
            SignalMessage.parse(fields[4]),  # type: ignore[arg-type]
        )


def build_pre_key_message(
    message: bytes,
    *,
    registration_id: int,
    pre_key_id: int | None,
    signed_pre_key_id: int,
    kyber_pre_key_id: int,
    kyber_ciphertext: bytes,
    base_key: bytes,
    identity_key: bytes,
) -> bytes:
    """The bytes of a type 3 message around the bytes of a type 2 one."""
    return b"".join(
        (
            _VERSION_BYTE,
            b"" if pre_key_id is None else uint_field(1, pre_key_id),
            bytes_field(2, base_key),
            bytes_field(3, identity_key),
            bytes_field(4, message),
            uint_field(5, registration_id),
            uint_field(6, signed_pre_key_id),
            uint_field(7, kyber_pre_key_id),
            bytes_field(8, kyber_ciphertext),
        )
    )


def _version(data: bytes) -> int:
    version = data[0] >> 4
    if version < OLDEST_PARSED_VERSION:
        raise LegacyCiphertextVersion(f"message version below {OLDEST_PARSED_VERSION}")
    if version > MESSAGE_VERSION:
        raise UnrecognizedCiphertextVersion(f"message version above {MESSAGE_VERSION}")
    return version


def _mac(mac_key: bytes, identities: bytes, authenticated: bytes) -> bytes:
    return mac(mac_key, identities + authenticated)[:MAC_SIZE]
