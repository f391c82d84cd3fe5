"""The flows: start a session from a bundle, encrypt, decrypt.

Each takes a record and returns a new one with its result; a failed flow raises and has changed
nothing. Trust decisions, pre-key storage and the memory of used last-resort keys are the caller's.
Source: facts/signal-session.md sections 5, 9 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from . import keys, kyber, pqxdh, session, xeddsa
from .address import Address
from .errors import (
    DuplicatedMessage,
    InvalidAddress,
    InvalidBundle,
    InvalidMessage,
    RatchetError,
    SessionNotFound,
    UntrustedIdentity,
)
from .keys import IdentityKeyPair, Random
from .limits import MAX_COUNTER, MAX_UNACKNOWLEDGED_SECONDS, MESSAGE_VERSION
from .messages import CiphertextMessage, MessageType, PreKeySignalMessage, SignalMessage
from .prekeys import NeededPreKeys, PreKeyBundle, PreKeys, UsedPreKeys
from .record import SessionRecord
from .session import Parties, Pending, Session

_CURRENT = -1
_SIGNAL, _PRE_KEY = MessageType.SIGNAL.value, MessageType.PRE_KEY.value


@dataclass(frozen=True, slots=True)
class LocalParty:
    """Ourselves in a conversation: address, identity, registration id (1..16383 by convention).

    Raises InvalidAddress for a registration id beyond 32 bits.
    """

    address: Address
    identity: IdentityKeyPair = field(repr=False)
    registration_id: int

    def __post_init__(self) -> None:
        if not 0 <= self.registration_id <= MAX_COUNTER:
            raise InvalidAddress("registration id is not an unsigned 32-bit number")


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Decrypted:
    """A decrypted message and what to store with it.

    `remote_identity` is the key to remember for this address; `used` is set when the message
    started a session from our pre-keys.
    """

    record: SessionRecord
    plaintext: bytes
    remote_identity: bytes
    used: UsedPreKeys | None


def process_bundle(
    record: SessionRecord | None,
    *,
    local: LocalParty,
    remote: Address,
    bundle: PreKeyBundle,
    trusted_identity: bytes | None,
    now_ms: int,
    random: Random,
) -> SessionRecord:
    """Start a session with the device a bundle belongs to; a former one is archived.

    Raises UntrustedIdentity, SignatureValidationFailed, InvalidKeyAgreement or an EncodingError.
    """
    _check_ids(bundle)
    identity_key = keys.parse_public(bundle.identity_key)
    signed_pre_key = keys.parse_public(bundle.signed_pre_key)
    pre_key = None if bundle.pre_key is None else keys.parse_public(bundle.pre_key)
    kyber_pre_key = kyber.parse_public(bundle.kyber_pre_key)
    _check_trust(identity_key, trusted_identity)
    xeddsa.verify_signature(identity_key, signed_pre_key, bundle.signed_pre_key_signature)
    xeddsa.verify_signature(identity_key, kyber_pre_key, bundle.kyber_pre_key_signature)
    offer = pqxdh.initiate(
        local.identity.private,
        identity_key=identity_key,
        signed_pre_key=signed_pre_key,
        pre_key=pre_key,
        kyber_pre_key=kyber_pre_key,
        random=random,
    )
    started = session.start_initiator(
        Parties(
            local.identity.public,
            identity_key,
            offer.base_key,
            local.registration_id,
            bundle.registration_id,
        ),
        offer,
        signed_pre_key=signed_pre_key,
        pending=Pending(
            bundle.pre_key_id,
            bundle.signed_pre_key_id,
            bundle.kyber_pre_key_id,
            offer.kyber_ciphertext,
            now_ms // 1000,
        ),
        max_jump=session.max_jump(local.identity.public, identity_key, local.address, remote),
        random=random,
    )
    return (record or SessionRecord()).promote(started)


def encrypt(
    record: SessionRecord | None,
    *,
    local: LocalParty,
    remote: Address,
    plaintext: bytes,
    trusted_identity: bytes | None = None,
    now_ms: int,
    random: Random,
) -> tuple[SessionRecord, CiphertextMessage]:
    """Encrypt with the current session.

    Raises SessionNotFound where there is none or it was never answered in 30 days, and
    UntrustedIdentity.
    """
    current = None if record is None else record.current
    if record is None or current is None:
        raise SessionNotFound("no session to send with")
    pending = current.pending
    if pending is not None and (
        (pending.created_seconds + MAX_UNACKNOWLEDGED_SECONDS) * 1000 < now_ms
    ):
        raise SessionNotFound("session was never answered and is too old to send with")
    following, message = session.seal(
        current, plaintext, local=local.address, remote=remote, random=random
    )
    _check_trust(current.parties.remote_identity, trusted_identity)
    return record.with_current(following), message


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


def _check_ids(bundle: PreKeyBundle) -> None:
    ids = (bundle.registration_id, bundle.signed_pre_key_id, bundle.kyber_pre_key_id)
    if not all(0 <= id_ <= MAX_COUNTER for id_ in (*ids, bundle.pre_key_id or 0)):
        raise InvalidBundle("an id is not an unsigned 32-bit number")
    if (bundle.pre_key is None) != (bundle.pre_key_id is None):
        raise InvalidBundle("one-time pre-key and its id come together or not at all")


def _check_trust(identity_key: bytes, trusted_identity: bytes | None) -> None:
    if trusted_identity is not None and identity_key != trusted_identity:
        raise UntrustedIdentity("identity key differs from the accepted one")


def _decrypt_signal(
    record: SessionRecord,
    local: Address,
    remote: Address,
    message: SignalMessage,
    trusted_identity: bytes | None,
    random: Random,
) -> Decrypted:
    for position in range(_CURRENT, len(record.archived)):
        candidate = record.current if position < 0 else record.archived_session(position)
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
        _check_trust(opened.parties.remote_identity, trusted_identity)
        following = (
            record.with_current(opened) if position < 0 else record.promote(opened, position)
        )
        return Decrypted(following, plaintext, opened.parties.remote_identity, None)
    raise InvalidMessage("no session decrypts this message")


def _decrypt_pre_key(
    record: SessionRecord,
    local: LocalParty,
    remote: Address,
    message: PreKeySignalMessage,
    trusted_identity: bytes | None,
    pre_keys: PreKeys,
    random: Random,
) -> Decrypted:
    _check_trust(message.identity_key, trusted_identity)
    promoted, used = _select_session(record, local, remote, message, pre_keys)
    if promoted.current is None:
        raise InvalidMessage("no session for this message")
    try:
        opened, plaintext = session.open_message(
            promoted.current, message.message, local=local.address, remote=remote, random=random
        )
    except DuplicatedMessage:
        raise
    except RatchetError:
        raise InvalidMessage("session does not decrypt this message") from None
    # The session's identity key, not the message's: on a repeated first message nothing
    # authenticates the latter, and a relay could plant a key of its own there.
    authenticated = opened.parties.remote_identity
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
        max_jump=session.max_jump(
            local.identity.public, message.identity_key, local.address, remote
        ),
    )
    used = UsedPreKeys(
        message.pre_key_id,
        message.signed_pre_key_id,
        message.kyber_pre_key_id,
        message.base_key,
    )
    return started, used
