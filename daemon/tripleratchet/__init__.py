"""PQXDH and the Triple Ratchet as pure functions over bytes.

Bytes in, bytes out: no I/O, no clock, no logging; randomness and time are arguments. This list is
the whole public surface; everything else may change.
"""

from .address import Address, service_id
from .decryption_error import (
    DecryptionError,
    decryption_error_of,
    plaintext_content,
    read_plaintext_content,
)
from .errors import (
    BadKEMCiphertextLength,
    BadKEMKeyLength,
    BadKEMKeyType,
    BadKeyLength,
    BadKeyType,
    CiphertextMessageTooShort,
    CorruptRecord,
    DuplicatedMessage,
    EncodingError,
    FingerprintError,
    FingerprintParsingError,
    FingerprintVersionMismatch,
    InvalidAddress,
    InvalidBundle,
    InvalidIterationCount,
    InvalidKeyAgreement,
    InvalidKyberPreKeyId,
    InvalidMessage,
    InvalidPreKeyId,
    InvalidProtobufEncoding,
    InvalidSignedPreKeyId,
    LegacyCiphertextVersion,
    NoKeyTypeIdentifier,
    RatchetError,
    SessionNotFound,
    SignatureValidationFailed,
    UnknownPreKey,
    UnrecognizedCiphertextVersion,
    UntrustedIdentity,
)
from .fingerprint import SafetyNumber, safety_number
from .incoming import Decrypted, decrypt, needed_pre_keys
from .keys import IdentityKeyPair, Random
from .messages import CiphertextMessage, MessageType
from .outgoing import encrypt, process_bundle
from .party import LocalParty
from .post_quantum import PostQuantumPolicy
from .prekeys import (
    KyberPreKey,
    NeededPreKeys,
    PreKey,
    PreKeyBundle,
    PreKeys,
    SignedPreKey,
    UsedPreKeys,
    generate_kyber_pre_key,
    generate_pre_key,
    generate_signed_pre_key,
)
from .record import SessionRecord
from .xeddsa import sign, verify_signature

__all__ = [
    "Address",
    "BadKEMCiphertextLength",
    "BadKEMKeyLength",
    "BadKEMKeyType",
    "BadKeyLength",
    "BadKeyType",
    "CiphertextMessage",
    "CiphertextMessageTooShort",
    "CorruptRecord",
    "Decrypted",
    "DecryptionError",
    "DuplicatedMessage",
    "EncodingError",
    "FingerprintError",
    "FingerprintParsingError",
    "FingerprintVersionMismatch",
    "IdentityKeyPair",
    "InvalidAddress",
    "InvalidBundle",
    "InvalidIterationCount",
    "InvalidKeyAgreement",
    "InvalidKyberPreKeyId",
    "InvalidMessage",
    "InvalidPreKeyId",
    "InvalidProtobufEncoding",
    "InvalidSignedPreKeyId",
    "KyberPreKey",
    "LegacyCiphertextVersion",
    "LocalParty",
    "MessageType",
    "NeededPreKeys",
    "NoKeyTypeIdentifier",
    "PostQuantumPolicy",
    "PreKey",
    "PreKeyBundle",
    "PreKeys",
    "Random",
    "RatchetError",
    "SafetyNumber",
    "SessionNotFound",
    "SessionRecord",
    "SignatureValidationFailed",
    "SignedPreKey",
    "UnknownPreKey",
    "UnrecognizedCiphertextVersion",
    "UntrustedIdentity",
    "UsedPreKeys",
    "decrypt",
    "decryption_error_of",
    "encrypt",
    "generate_kyber_pre_key",
    "generate_pre_key",
    "generate_signed_pre_key",
    "needed_pre_keys",
    "plaintext_content",
    "process_bundle",
    "read_plaintext_content",
    "safety_number",
    "service_id",
    "sign",
    "verify_signature",
]
