"""The sending flows: start a session from a bundle, encrypt.

Each takes a record and returns a new one; a failed flow raises and has changed nothing. Trust
decisions are the caller's. Source: facts/signal-session.md sections 5 and 9.
"""

from __future__ import annotations

from . import keys, kyber, pqxdh, session, xeddsa
from .address import Address
from .errors import InvalidBundle, SessionNotFound
from .keys import Random
from .limits import MAX_COUNTER, MAX_UNACKNOWLEDGED_SECONDS
from .messages import CiphertextMessage, MessageType
from .party import LocalParty, check_trust
from .prekeys import PreKeyBundle
from .record import SessionRecord
from .resting import Resting
from .session import REMOTE, Parties, Pending, Session

_SIGNAL = MessageType.SIGNAL.value


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
    check_trust(identity_key, trusted_identity)
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
        policy=local.post_quantum,
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
    current = None if record is None else record.rested().current
    if record is None or current is None:
        raise SessionNotFound("no session to send with")
    if isinstance(current, Resting):
        rested, body = current.seal(plaintext, random)
        check_trust(rested.front[REMOTE], trusted_identity)
        return SessionRecord(rested, record.archived), CiphertextMessage(_SIGNAL, body)
    _check_age(current, now_ms)
    following, message = session.seal(
        current, plaintext, local=local.address, remote=remote, random=random
    )
    check_trust(current.parties[REMOTE], trusted_identity)
    return record.with_current(following), message


def _check_age(current: Session, now_ms: int) -> None:
    pending = current.pending
    if pending is not None and (
        (pending.created_seconds + MAX_UNACKNOWLEDGED_SECONDS) * 1000 < now_ms
    ):
        raise SessionNotFound("session was never answered and is too old to send with")


def _check_ids(bundle: PreKeyBundle) -> None:
    ids = (bundle.registration_id, bundle.signed_pre_key_id, bundle.kyber_pre_key_id)
    if not all(0 <= id_ <= MAX_COUNTER for id_ in (*ids, bundle.pre_key_id or 0)):
        raise InvalidBundle("an id is not an unsigned 32-bit number")
    if (bundle.pre_key is None) != (bundle.pre_key_id is None):
        raise InvalidBundle("one-time pre-key and its id come together or not at all")
