"""One session: its state, how it starts, and one attempt to seal or open a message with it.

Works on a single immutable state and returns the next one; the caller keeps it or drops it.
Knows no record, no archived sessions, no pre-key store and no trust decision.
Source: facts/signal-session.md sections 6, 9 and 10.1.
"""

from __future__ import annotations

import hmac
import struct
from typing import NamedTuple

from . import double, keys, post_quantum
from .address import Address, binding, same_account
from .double import Core, Ratchet, ReceivingChain
from .errors import InvalidMessage
from .keys import Random
from .limits import MAX_FORWARD_JUMP, MAX_SELF_JUMP, MESSAGE_VERSION
from .messages import (
    CiphertextMessage,
    MessageType,
    SignalMessage,
    build_pre_key_message,
    build_signal_message,
)
from .post_quantum import DECLINED, PostQuantum, PostQuantumPolicy
from .pqxdh import Offer, Secrets
from .primitives import aes256_cbc_encrypt


class Parties(NamedTuple):
    """What a session was made with and keeps for life."""

    local_identity: bytes
    remote_identity: bytes
    base_key: bytes
    local_registration_id: int
    remote_registration_id: int

    def __repr__(self) -> str:
        return keys.hidden(self)

    @classmethod
    def decode(cls, stored: bytes) -> Parties:
        """Undo encode."""
        return cls(*_PARTIES.unpack(stored))

    def encode(self) -> bytes:
        """At rest: 107 bytes, numbers big-endian."""
        return _PARTIES.pack(*self)


_PARTIES = struct.Struct(">33s33s33sII")
PARTIES_SIZE = _PARTIES.size
LOCAL, REMOTE, BASE = slice(0, 33), slice(33, 66), slice(66, 99)
REMOTE_REGISTRATION = slice(103, 107)
SENDER_FIRST = slice(0, 66)
"""Of encoded parties: identity keys, base key, the peer's registration id; all that most messages
need."""


class Pending(NamedTuple):
    """What every message repeats until the peer has answered once."""

    pre_key_id: int | None
    signed_pre_key_id: int
    kyber_pre_key_id: int
    kyber_ciphertext: bytes
    created_seconds: int

    def __repr__(self) -> str:
        return keys.hidden(self)


class Session(NamedTuple):
    """The whole state of one session; `parties` is an encoded Parties."""

    parties: bytes
    ratchet: Ratchet
    pending: Pending | None
    post_quantum: PostQuantum

    def __repr__(self) -> str:
        return keys.hidden(self)

    def acknowledged(self) -> Session:
        """The same session without pending pre-key information."""
        if self.pending is None:
            return self
        return Session(self.parties, self.ratchet, None, self.post_quantum)


def start_initiator(
    parties: Parties,
    offer: Offer,
    *,
    signed_pre_key: bytes,
    pending: Pending,
    policy: PostQuantumPolicy,
    random: Random,
) -> Session:
    """The initiator's session: a root step ahead, receiving first under the signed pre-key."""
    secrets = offer.secrets
    private, public = keys.generate(random)
    shared = keys.agree(private, signed_pre_key)
    root_key, sending_key = double.root_step(secrets.root_key, shared)
    ratchet = Ratchet(
        Core(root_key, 0, private, public, sending_key, 0).encode(),
        (ReceivingChain(signed_pre_key, secrets.chain_key, 0, b"").encode(),),
    )
    pq = post_quantum.start(secrets.auth_key, is_initiator=True, policy=policy)
    return Session(parties.encode(), ratchet, pending, pq)


def start_responder(
    parties: Parties,
    secrets: Secrets,
    *,
    signed_private: bytes,
    signed_public: bytes,
    policy: PostQuantumPolicy,
) -> Session:
    """The responder's session; its first receive makes a DH step, so this chain never sends."""
    core = Core(secrets.root_key, 0, signed_private, signed_public, secrets.chain_key, 0)
    pq = post_quantum.start(secrets.auth_key, is_initiator=False, policy=policy)
    return Session(parties.encode(), Ratchet(core.encode(), ()), None, pq)


def max_jump(local_identity: bytes, remote_identity: bytes, local: Address, remote: Address) -> int:
    """The forward jump allowed; larger only for a session with another device of ourselves."""
    if local_identity == remote_identity and same_account(local, remote):
        return MAX_SELF_JUMP
    return MAX_FORWARD_JUMP


def seal(
    session: Session, plaintext: bytes, *, local: Address, remote: Address, random: Random
) -> tuple[Session, CiphertextMessage]:
    """Encrypt one message; it is a pre-key message while the peer has not answered."""
    parties, ratchet, pending, pq = session
    pq, pq_message, salt = pq.send(random)
    ratchet, seed, counter = double.next_sending(ratchet)
    cipher_key, mac_key, iv = double.message_keys(seed, salt)
    core = ratchet.core
    body = build_signal_message(
        mac_key,
        parties[SENDER_FIRST],
        ratchet_key=core[double.SENDING_PUBLIC],
        counter=counter,
        previous_counter=int.from_bytes(core[double.PREVIOUS_COUNTER], "big"),
        ciphertext=aes256_cbc_encrypt(cipher_key, iv, plaintext),
        pq_ratchet=pq_message,
        addresses=binding(local, remote) if pending is not None else None,
    )
    following = Session(parties, ratchet, pending, pq)
    if pending is None:
        return following, CiphertextMessage(MessageType.SIGNAL, body)
    return following, CiphertextMessage(
        MessageType.PRE_KEY, _wrap(Parties.decode(parties), pending, body)
    )


def open_message(
    session: Session, message: SignalMessage, *, local: Address, remote: Address, random: Random
) -> tuple[Session, bytes]:
    """One attempt to decrypt; on success the session is acknowledged.

    Raises DuplicatedMessage (before the MAC is looked at), InvalidMessage, InvalidKeyAgreement.
    """
    if message.version != MESSAGE_VERSION:
        raise InvalidMessage("message version is not the session's")
    parties, ratchet, _, pq_before = session
    mine, theirs = parties[LOCAL], parties[REMOTE]
    jump = MAX_FORWARD_JUMP if mine != theirs else max_jump(mine, theirs, local, remote)
    ratchet, seed, is_new = double.next_receiving(
        ratchet, message.ratchet_key, message.counter, jump
    )
    pq, salt = pq_before.receive(message.pq_ratchet, jump)
    cipher_key, mac_key, iv = double.message_keys(seed, salt)
    if not message.verify(mac_key, theirs + mine):
        raise InvalidMessage("MAC does not match")
    if message.addresses is not None:
        _check_addresses(message.addresses, binding(remote, local))
    plaintext = double.decrypt_block(cipher_key, iv, message.ciphertext)
    if is_new:
        ratchet = double.turn(ratchet, random)
    return Session(parties, ratchet, None, DECLINED if pq is None else pq), plaintext


def _check_addresses(received: bytes, expected: bytes | None) -> None:
    if expected is None or not hmac.compare_digest(received, expected):
        raise InvalidMessage("message is bound to other addresses")


def _wrap(parties: Parties, pending: Pending, body: bytes) -> bytes:
    return build_pre_key_message(
        body,
        registration_id=parties.local_registration_id,
        pre_key_id=pending.pre_key_id,
        signed_pre_key_id=pending.signed_pre_key_id,
        kyber_pre_key_id=pending.kyber_pre_key_id,
        kyber_ciphertext=pending.kyber_ciphertext,
        base_key=parties.base_key,
        identity_key=parties.local_identity,
    )
