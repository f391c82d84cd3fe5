"""The errors of the ratchet: one tree for bad input, and one class outside it for our own state.

RatchetError                       someone gave us something the protocol refuses
├── InvalidMessage                 forged, damaged, too far ahead, unknown chain
├── DuplicatedMessage              the counter was used before (or its seed was trimmed)
├── SessionNotFound                nothing to encrypt or decrypt with
├── UntrustedIdentity              the identity key is not the accepted one
├── SignatureValidationFailed      a bundle's pre-key is not signed by its identity
├── InvalidKeyAgreement            a Diffie-Hellman or KEM input that yields no secret
├── EncodingError                  unreadable before any key is used
│   ├── CiphertextMessageTooShort, InvalidProtobufEncoding
│   ├── LegacyCiphertextVersion, UnrecognizedCiphertextVersion
│   ├── NoKeyTypeIdentifier, BadKeyType, BadKeyLength
│   ├── BadKEMKeyType, BadKEMKeyLength, BadKEMCiphertextLength
│   └── InvalidBundle              ids that do not fit, or half a one-time pre-key
├── UnknownPreKey                  a message names a pre-key we do not hold
│   └── InvalidPreKeyId, InvalidSignedPreKeyId, InvalidKyberPreKeyId
├── InvalidAddress                 a device number or registration id out of range
└── FingerprintError
    └── FingerprintVersionMismatch, FingerprintParsingError, InvalidIterationCount

CorruptRecord                      our own stored state is unreadable: never the peer's fault

Class names are those of facts/signal-session.md section 13, so that verdicts of two
implementations can be compared. Texts hold no key, content, name or number of anyone.
"""

from __future__ import annotations


class RatchetError(Exception):
    """Input refused; nothing was changed. `reason` is a stable upper snake case code."""

    reason = "RATCHET_ERROR"


class InvalidMessage(RatchetError):
    """No session opens it: forged, damaged, too far ahead, or from a dropped chain."""

    reason = "INVALID_MESSAGE"


class DuplicatedMessage(RatchetError):
    """Its counter was already used; told before the MAC is looked at (section 10.1)."""

    reason = "DUPLICATED_MESSAGE"


class SessionNotFound(RatchetError):
    """No usable session: fetch a bundle (sending) or ask for a new session (receiving)."""

    reason = "SESSION_NOT_FOUND"


class UntrustedIdentity(RatchetError):
    """The identity key differs from the accepted one; the caller decides what follows."""

    reason = "UNTRUSTED_IDENTITY"


class SignatureValidationFailed(RatchetError):
    """A bundle's signed or Kyber pre-key does not carry a signature of its identity key."""

    reason = "SIGNATURE_VALIDATION_FAILED"


class InvalidKeyAgreement(RatchetError):
    """A public key of low order, or a KEM key that is not one."""

    reason = "INVALID_KEY_AGREEMENT"


class EncodingError(RatchetError):
    """Unreadable bytes; raised before any key or store is touched."""

    reason = "ENCODING_ERROR"


class CiphertextMessageTooShort(EncodingError):
    """Shorter than version byte and MAC."""

    reason = "CIPHERTEXT_MESSAGE_TOO_SHORT"


class InvalidProtobufEncoding(EncodingError):
    """Malformed protobuf, a known field of the wrong type, or a required one missing."""

    reason = "INVALID_PROTOBUF_ENCODING"


class LegacyCiphertextVersion(EncodingError):
    """Message version below 3."""

    reason = "LEGACY_CIPHERTEXT_VERSION"


class UnrecognizedCiphertextVersion(EncodingError):
    """Message version above 4."""

    reason = "UNRECOGNIZED_CIPHERTEXT_VERSION"


class NoKeyTypeIdentifier(EncodingError):
    """An empty key."""

    reason = "NO_KEY_TYPE_IDENTIFIER"


class BadKeyType(EncodingError):
    """An EC key whose type byte is not 05."""

    reason = "BAD_KEY_TYPE"


class BadKeyLength(EncodingError):
    """An EC key with too few bytes, or a private key that is not 32 bytes."""

    reason = "BAD_KEY_LENGTH"


class BadKEMKeyType(EncodingError):
    """A KEM key or ciphertext whose type byte is not 08 (Kyber1024)."""

    reason = "BAD_KEM_KEY_TYPE"


class BadKEMKeyLength(EncodingError):
    """A KEM public key that is not 1569 bytes, or a seed that is not 64."""

    reason = "BAD_KEM_KEY_LENGTH"


class BadKEMCiphertextLength(EncodingError):
    """A KEM ciphertext that is not 1569 bytes."""

    reason = "BAD_KEM_CIPHERTEXT_LENGTH"


class InvalidBundle(EncodingError):
    """An id beyond 32 bits, or a one-time pre-key without its id (or the reverse)."""

    reason = "INVALID_BUNDLE"


class UnknownPreKey(RatchetError):
    """The message names a pre-key that is not (or no longer) ours."""

    reason = "UNKNOWN_PRE_KEY"


class InvalidPreKeyId(UnknownPreKey):
    """Unknown one-time pre-key: most often it was used before."""

    reason = "INVALID_PRE_KEY_ID"


class InvalidSignedPreKeyId(UnknownPreKey):
    """Unknown signed pre-key: most often it was rotated out."""

    reason = "INVALID_SIGNED_PRE_KEY_ID"


class InvalidKyberPreKeyId(UnknownPreKey):
    """Unknown Kyber pre-key: used before or rotated out."""

    reason = "INVALID_KYBER_PRE_KEY_ID"


class InvalidAddress(RatchetError):
    """A device number outside 1..127, or a registration id that is not unsigned 32-bit."""

    reason = "INVALID_ADDRESS"


class FingerprintError(RatchetError):
    """A safety number that cannot be made or compared."""

    reason = "FINGERPRINT_ERROR"


class FingerprintVersionMismatch(FingerprintError):
    """The scanned safety number has another version; not a sign of a wrong key."""

    reason = "FINGERPRINT_VERSION_MISMATCH"


class FingerprintParsingError(FingerprintError):
    """The scanned bytes are not a safety number."""

    reason = "FINGERPRINT_PARSING_ERROR"


class InvalidIterationCount(FingerprintError):
    """An iteration count outside 2..1000000."""

    reason = "INVALID_ITERATION_COUNT"


class CorruptRecord(Exception):
    """A stored session record cannot be read: our fault or the disk's, never the peer's."""

    reason = "CORRUPT_RECORD"
