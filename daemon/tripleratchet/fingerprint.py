"""Safety numbers: what two users compare to know that nobody sits between them.

Knows identity keys and stable identifiers only. Source: facts/signal-session.md section 16.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha512

from .errors import (
    FingerprintParsingError,
    FingerprintVersionMismatch,
    InvalidIterationCount,
    InvalidProtobufEncoding,
)
from .limits import (
    DEFAULT_FINGERPRINT_ITERATIONS,
    MAX_FINGERPRINT_ITERATIONS,
    MIN_FINGERPRINT_ITERATIONS,
)
from .wire import BYTES, VARINT, bytes_field, read_fields, uint_field

_SCANNED_SIZE = 32
_GROUPS = range(0, 30, 5)


@dataclass(frozen=True, slots=True)
class SafetyNumber:
    """Both fingerprints of a conversation (64 bytes each); names two people, so not in a repr."""

    version: int
    local: bytes = field(repr=False)
    remote: bytes = field(repr=False)

    @property
    def displayable(self) -> str:
        """60 digits, equal on both sides."""
        return "".join(sorted((_digits(self.local), _digits(self.remote))))

    @property
    def scannable(self) -> bytes:
        """The bytes of a code that the other side scans."""
        return (
            uint_field(1, self.version)
            + bytes_field(2, bytes_field(1, self.local[:_SCANNED_SIZE]))
            + bytes_field(3, bytes_field(1, self.remote[:_SCANNED_SIZE]))
        )

    def compare(self, scanned: bytes) -> bool:
        """Whether the other side's scannable bytes show the same two keys.

        Raises FingerprintVersionMismatch or FingerprintParsingError.
        """
        version, their_local, their_remote = _parse(scanned)
        if version != self.version:
            raise FingerprintVersionMismatch("safety numbers of different versions")
        matches = hmac.compare_digest(their_local, self.remote[:_SCANNED_SIZE])
        return hmac.compare_digest(their_remote, self.local[:_SCANNED_SIZE]) and matches


def safety_number(
    *,
    version: int,
    local_identifier: bytes,
    local_identity: bytes,
    remote_identifier: bytes,
    remote_identity: bytes,
    iterations: int = DEFAULT_FINGERPRINT_ITERATIONS,
) -> SafetyNumber:
    """The safety number of two identity keys (33 bytes) and their owners' stable identifiers.

    Identifiers: version 1 the E.164 text, version 2 the service id's bytes. Both sides must use
    one version and count. Raises InvalidIterationCount. Costs milliseconds, on purpose.
    """
    if not MIN_FINGERPRINT_ITERATIONS <= iterations <= MAX_FINGERPRINT_ITERATIONS:
        raise InvalidIterationCount(
            f"iterations must be {MIN_FINGERPRINT_ITERATIONS} to {MAX_FINGERPRINT_ITERATIONS}"
        )
    return SafetyNumber(
        version,
        _fingerprint(local_identity, local_identifier, iterations),
        _fingerprint(remote_identity, remote_identifier, iterations),
    )


def _fingerprint(identity: bytes, identifier: bytes, iterations: int) -> bytes:
    digest = sha512(b"\x00\x00" + identity + identifier + identity).digest()
    for _ in range(iterations - 1):
        digest = sha512(digest + identity).digest()
    return digest


def _digits(fingerprint: bytes) -> str:
    groups = (int.from_bytes(fingerprint[at : at + 5], "big") % 100_000 for at in _GROUPS)
    return "".join(f"{group:05d}" for group in groups)


def _parse(scanned: bytes) -> tuple[int, bytes, bytes]:
    try:
        outer = read_fields(scanned, {1: VARINT, 2: BYTES, 3: BYTES})
        halves = [read_fields(_required(outer, number), {1: BYTES}) for number in (2, 3)]
        local, remote = (_required(half, 1) for half in halves)
    except InvalidProtobufEncoding:
        raise FingerprintParsingError("not a safety number") from None
    version = outer.get(1, 0)
    if not isinstance(version, int):
        raise FingerprintParsingError("not a safety number")
    return version, local, remote


def _required(fields: dict[int, int | bytes], number: int) -> bytes:
    value = fields.get(number)
    if not isinstance(value, bytes):
        raise InvalidProtobufEncoding(f"required field missing: {number}")
    return value
