"""What workers keep sealed, and under which key and context each (I5).

    record               key                                           context
    conversation         subkey(scope key, "conversation", its id)     "conversation" id
    local identity       subkey(scope key, "identity", account)        "identity" account
    private pre-key      subkey(scope key, "pre-key", account)         "pre-key" account kind id
    content              the day key                                   the task's content_context

A context is authenticated: a row that was copied to another place does not open. Everything that
does not open or does not parse is `Unreadable`, without telling which: both mean the same to do.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError
from tripleratchet import IdentityKeyPair, Random

from letterlockd.records.v1 import conversation_pb2, jobs_pb2
from letterlockd.sealing.errors import SealBroken
from letterlockd.sealing.seal import Cipher, seal, subkey, unseal

__all__ = [
    "ContentSeal",
    "ConversationSeal",
    "Unreadable",
    "open_identity",
    "open_pre_key",
    "seal_identity",
    "seal_pre_key",
]


class Unreadable(Exception):
    """One of our own rows does not open: damaged, misplaced, or under another key."""


class ConversationSeal:
    """Opens and seals the record of one conversation (32-byte id)."""

    def __init__(self, scope_key: bytes, conversation: bytes) -> None:
        self._cipher = Cipher(subkey(scope_key, "conversation", conversation))
        self._context = b"conversation" + conversation

    def open(self, sealed: bytes) -> conversation_pb2.ConversationRecord:
        """The record. Raises `Unreadable`."""
        try:
            return conversation_pb2.ConversationRecord.FromString(
                self._cipher.unseal(sealed, self._context)
            )
        except (SealBroken, DecodeError):
            raise Unreadable from None

    def seal(self, record: conversation_pb2.ConversationRecord, random: Random) -> bytes:
        """Undo `open`."""
        return self._cipher.seal(record.SerializeToString(), self._context, random)


class ContentSeal:
    """Opens and seals payloads (serialised) under one day key, whose cipher is made when it is
    first needed: a task without content has no day key."""

    def __init__(self, day_key: bytes) -> None:
        self._day_key = day_key
        self._cipher: Cipher | None = None

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """A payload. Raises `Unreadable`."""
        try:
            return self._ready().unseal(sealed, context)
        except SealBroken:
            raise Unreadable from None

    def seal(self, payload: bytes, context: bytes, random: Random) -> bytes:
        """Undo `open`."""
        return self._ready().seal(payload, context, random)

    def _ready(self) -> Cipher:
        self._cipher = self._cipher or Cipher(self._day_key)
        return self._cipher


def open_identity(scope_key: bytes, account: bytes, sealed: bytes) -> tuple[IdentityKeyPair, int]:
    """Key pair and registration id of a business number. Raises `Unreadable`."""
    plain = _unseal(subkey(scope_key, "identity", account), sealed, b"identity" + account)
    try:
        stored = conversation_pb2.LocalIdentity.FromString(plain)
    except DecodeError:
        raise Unreadable from None
    return IdentityKeyPair(stored.private_key, stored.public_key), stored.registration_id


def seal_identity(
    scope_key: bytes,
    account: bytes,
    identity: IdentityKeyPair,
    registration_id: int,
    random: Random,
) -> bytes:
    """Undo `open_identity`."""
    stored = conversation_pb2.LocalIdentity(
        private_key=identity.private,
        public_key=identity.public,
        registration_id=registration_id,
    )
    key = subkey(scope_key, "identity", account)
    return seal(key, stored.SerializeToString(), b"identity" + account, random)


def open_pre_key(scope_key: bytes, account: bytes, stored: jobs_pb2.SealedPreKey) -> bytes:
    """The private bytes of a pre-key (EC 32, Kyber seed 64). Raises `Unreadable`."""
    context = _pre_key_context(account, stored.kind, stored.key_id)
    return _unseal(subkey(scope_key, "pre-key", account), stored.sealed, context)


def seal_pre_key(
    scope_key: bytes,
    account: bytes,
    kind: jobs_pb2.PreKeyKind.ValueType,
    key_id: int,
    private: bytes,
    random: Random,
) -> jobs_pb2.SealedPreKey:
    """Undo `open_pre_key`."""
    context = _pre_key_context(account, kind, key_id)
    sealed = seal(subkey(scope_key, "pre-key", account), private, context, random)
    return jobs_pb2.SealedPreKey(kind=kind, key_id=key_id, sealed=sealed)


def _pre_key_context(account: bytes, kind: int, key_id: int) -> bytes:
    return b"pre-key" + account + bytes([kind]) + key_id.to_bytes(4, "big")


def _unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    try:
        return unseal(key, sealed, context)
    except SealBroken:
        raise Unreadable from None
