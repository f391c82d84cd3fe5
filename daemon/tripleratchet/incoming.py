"""The receiving flow: find the session a message belongs to, or make it, and decrypt.

Takes a record and returns a new one; a failed flow raises and has changed nothing. Trust decisions,
pre-key storage and the memory of used last-resort keys are the caller's.
Source: facts/signal-session.md section 10.
"""

from __future__ import annotations

from typing import NamedTuple

from . import keys, pqxdh, session
from .address import Address
from .errors import DuplicatedMessage, InvalidMessage, RatchetError, SessionNotFound
from .keys import Random
from .limits import MESSAGE_VERSION
from .messages import CiphertextMessage, MessageType, PreKeySignalMessage, SignalMessage
from .party import LocalParty, check_trust
from .prekeys import NeededPreKeys, PreKeys, UsedPreKeys
from .record import SessionRecord
from .resting import Resting
from .session import REMOTE, Parties, Session

_CURRENT = -1
_SIGNAL, _PRE_KEY = MessageType.SIGNAL.value, MessageType.PRE_KEY.value


class Decrypted(NamedTuple):
    """A decrypted message and what to store with it.

    `remote_identity` is the key to remember for this address; `used` is set when the message
    started a session from our pre-keys.
    """

    record: SessionRecord
    plaintext: bytes
    remote_identity: bytes
    used: UsedPreKeys | None

    def __repr__(self) -> str:
        return keys.hidden(self)


def decrypt(
    record: SessionRecord | None,
    *,
    local: LocalParty,
    remote: Address,
    message: CiphertextMessage,
    trusted_identity: bytes | None,
    pre_keys: PreKeys,
    now_ms: int,  # no verdict on receipt depends on time; part of the signature for symmetry
    random: Random,
) -> Decrypted:
    """Decrypt a message of either type, whichever of the record's sessions it belongs to.

    Raises the verdicts of section 13; pre_keys' own errors pass through.
    """
    if message.type == _SIGNAL:
        parsed = SignalMessage.parse(message.body)
        if record is None:
            raise SessionNotFound("no session with this address")
        return _decrypt_signal(record, local.address, remote, parsed, trusted_identity, random)
    if message.type == _PRE_KEY:
        return _decrypt_pre_key(
            record or SessionRecord(),
            local,
            remote,
            PreKeySignalMessage.parse(message.body),
            trusted_identity,
            pre_keys,
            random,
        )
    raise InvalidMessage("message type is neither 2 nor 3")


def needed_pre_keys(
    record: SessionRecord | None, message: CiphertextMessage
) -> NeededPreKeys | None:
    """The pre-keys that decrypt() would look up; None where it would look up none.

    Raises what parsing a pre-key message raises.
    """
    if message.type != _PRE_KEY:
        return None
    parsed = PreKeySignalMessage.parse(message.body)
    if parsed.version != MESSAGE_VERSION or parsed.kyber_pre_key_id is None:
        return None
    if record is not None and record.find_base_key(parsed.base_key) is not None:
        return None
    return NeededPreKeys(parsed.signed_pre_key_id, parsed.kyber_pre_key_id, parsed.pre_key_id)


def _decrypt_signal(
    record: SessionRecord,
    local: Address,
    remote: Address,
    message: SignalMessage,
    trusted_identity: bytes | None,
    random: Random,
) -> Decrypted:
    expected = _open_expected(record.rested(), message, trusted_identity)
    if expected is not None:
        return expected
    current = record.current_session()
    for position in range(_CURRENT, len(record.archived)):
        candidate = current if position < 0 else record.archived_session(position)
        if candidate is None:
            continue
        try:
            opened, plaintext = session.open_message(
                candidate, message, local=local, remote=remote, random=random
            )
        except DuplicatedMessage:
            raise  # the answer, whichever session gives it (section 10.2)
        except RatchetError:
            continue
        identity = opened.parties[REMOTE]
        check_trust(identity, trusted_identity)
        following = (
            record.with_current(opened) if position < 0 else record.promote(opened, position)
        )
        return Decrypted(following, plaintext, identity, None)
    raise InvalidMessage("no session decrypts this message")


def _open_expected(
    record: SessionRecord, message: SignalMessage, trusted_identity: bytes | None
) -> Decrypted | None:
    """The message that comes next on the current session, decrypted without taking that apart."""
    current = record.current
    if not isinstance(current, Resting):
        return None
    try:
        opened = current.open(message)
    except InvalidMessage:
        return None  # for the current session's verdict, and then the others'
    if opened is None:
        return None
    following, plaintext = opened
    identity = following.front[REMOTE]
    check_trust(identity, trusted_identity)
    return Decrypted(SessionRecord(following, record.archived), plaintext, identity, None)


def _decrypt_pre_key(
    record: SessionRecord,
    local: LocalParty,
    remote: Address,
    message: PreKeySignalMessage,
    trusted_identity: bytes | None,
    pre_keys: PreKeys,
    random: Random,
) -> Decrypted:
    check_trust(message.identity_key, trusted_identity)
    promoted, used = _select_session(record, local, remote, message, pre_keys)
    current = promoted.current_session()
    if current is None:
        raise InvalidMessage("no session for this message")
    try:
        opened, plaintext = session.open_message(
            current,
            message.message,
            local=local.address,
            remote=remote,
            random=random,
        )
    except DuplicatedMessage:
        raise
    except RatchetError:
        raise InvalidMessage("session does not decrypt this message") from None
    # The session's identity key, not the message's: on a repeated first message nothing
    # authenticates the latter, and a relay could plant a key of its own there.
    authenticated = opened.parties[REMOTE]
    return Decrypted(promoted.with_current(opened), plaintext, authenticated, used)


def _select_session(
    record: SessionRecord,
    local: LocalParty,
    remote: Address,
    message: PreKeySignalMessage,
    pre_keys: PreKeys,
) -> tuple[SessionRecord, UsedPreKeys | None]:
    # The base key is looked for before any pre-key: a repeated first message must still open
    # after its one-time pre-key is gone (section 10.3 step 4).
    if message.version != MESSAGE_VERSION:
        raise InvalidMessage("pre-key message of version 3")
    position = record.find_base_key(message.base_key)
    if position == _CURRENT:
        return record, None
    if position is not None:
        return record.promote(record.archived_session(position), position), None
    started, used = _respond(local, remote, message, pre_keys)
    return record.promote(started), used


def _respond(
    local: LocalParty, remote: Address, message: PreKeySignalMessage, pre_keys: PreKeys
) -> tuple[Session, UsedPreKeys]:
    if message.kyber_pre_key_id is None or message.kyber_ciphertext is None:
        raise InvalidMessage("pre-key message without its two Kyber fields")
    signed = pre_keys.signed_pre_key(message.signed_pre_key_id)
    kyber_key = pre_keys.kyber_pre_key(message.kyber_pre_key_id)
    one_time = None if message.pre_key_id is None else pre_keys.pre_key(message.pre_key_id)
    if not keys.is_canonical(message.base_key):
        raise InvalidMessage("base key is not canonical")
    secrets = pqxdh.respond(
        local.identity.private,
        identity_key=message.identity_key,
        base_key=message.base_key,
        kyber_ciphertext=message.kyber_ciphertext,
        signed_pre_key=signed,
        pre_key=one_time,
        kyber_pre_key=kyber_key,
    )
    started = session.start_responder(
        Parties(
            local.identity.public,
            message.identity_key,
            message.base_key,
            local.registration_id,
            message.registration_id,
        ),
        secrets,
        signed_private=signed.private,
        signed_public=signed.public,
        policy=local.post_quantum,
    )
    used = UsedPreKeys(
        message.pre_key_id,
        message.signed_pre_key_id,
        message.kyber_pre_key_id,
        message.base_key,
    )
    return started, used
