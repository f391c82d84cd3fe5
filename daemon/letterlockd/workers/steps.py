"""The steps of a conversation: establish, encrypt, decrypt, drop devices.

Each works on an opened `Conversation` and changes it, and its `outcome`, only when it has
succeeded as a whole; a refusal is raised (`RatchetError` and the errors named here) and has
changed nothing. Knows no sealed record of a conversation, no process, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from google.protobuf.message import DecodeError
from letterlock.relay.v1 import keys_pb2, mailbox_pb2
from tripleratchet import (
    Address,
    CiphertextMessage,
    Decrypted,
    InvalidMessage,
    LocalParty,
    MessageType,
    PostQuantumPolicy,
    PreKeyBundle,
    Random,
    SessionNotFound,
    SessionRecord,
    UntrustedIdentity,
    needed_pre_keys,
    process_bundle,
)
from tripleratchet import decrypt as ratchet_decrypt
from tripleratchet import encrypt as ratchet_encrypt

from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.conversation import Conversation
from letterlockd.workers.payloads import BadPayload, read_payload
from letterlockd.workers.prekeys import GivenPreKeys, Space
from letterlockd.workers.sealed import ContentSeal

__all__ = [
    "BadBundle",
    "IdentityUnconfirmed",
    "Setting",
    "decrypt",
    "drop_devices",
    "encrypt",
    "establish",
]


class BadBundle(Exception):
    """The bytes are no DeviceBundle, or there is none to prove the identity key with."""


class IdentityUnconfirmed(Exception):
    """The business has yet to confirm the user's identity key."""


@dataclass(slots=True, repr=False, eq=False)
class Setting:
    """What all steps of a task share. `spent` collects the one-time pre-keys that they use up."""

    local: LocalParty
    remote_name: str
    key_owner: bytes
    scope_key: bytes
    content: ContentSeal
    now_ms: int
    unanswered_limit_ms: int
    random: Random
    hold_identity_changes: bool = False
    spent: set[Space] = field(default_factory=set)


def establish(
    conversation: Conversation,
    step: jobs_pb2.Establish,
    setting: Setting,
    outcome: jobs_pb2.StepResult,
) -> None:
    """Open a session with each bundle's device. Raises a `RatchetError` (`UntrustedIdentity` where
    the known identity key is asked for and it is another one), `BadBundle`."""
    if not step.bundles:
        raise BadBundle
    same = conversation.identity_key in (None, step.identity_key)
    if step.same_identity and not same:
        raise UntrustedIdentity("another identity key than the known one")
    opened: dict[int, SessionRecord] = {}
    for data in step.bundles:
        bundle = _parse_bundle(data, step.identity_key)
        device = bundle.device_id
        former = opened.get(device) or (conversation.sessions(device) if same else None)
        opened[device] = process_bundle(
            former,
            local=setting.local,
            remote=Address(setting.remote_name, device),
            bundle=bundle,
            trusted_identity=step.identity_key,
            now_ms=setting.now_ms,
            random=setting.random,
        )
    changed = conversation.accept_identity(step.identity_key, hold=setting.hold_identity_changes)
    if step.complete:
        conversation.forget(set(conversation.devices) - opened.keys())
    for device, sessions in opened.items():
        conversation.put(device, sessions)
        conversation.heard(device)
    outcome.established.identity_changed = changed


def encrypt(
    conversation: Conversation,
    step: jobs_pb2.Encrypt,
    setting: Setting,
    outcome: jobs_pb2.StepResult,
) -> None:
    """Encrypt for every device, or only one. Raises a `RatchetError` (`SessionNotFound` when there
    is none to send with), `IdentityUnconfirmed`."""
    if (
        conversation.identity_unconfirmed
        and step.confirmed_identity_key != conversation.identity_key
    ):
        raise IdentityUnconfirmed
    context = step.content_context
    if step.WhichOneof("source") == "sealed_payload":
        payload, keep = setting.content.open(step.sealed_payload, context), False
    else:
        payload, keep = step.payload, bool(context)
    following: list[tuple[int, SessionRecord]] = []
    envelopes: list[bytes] = []
    for device in [step.only_device] if step.only_device else conversation.devices:
        before = conversation.sessions(device)
        if not _may_send(conversation, device, before, setting):
            continue  # the relay will name the device as missing, and its bundle is fetched
        try:
            sessions, message = ratchet_encrypt(
                before,
                local=setting.local,
                remote=Address(setting.remote_name, device),
                plaintext=payload,
                trusted_identity=conversation.identity_key,
                now_ms=setting.now_ms,
                random=setting.random,
            )
        except SessionNotFound:
            continue
        following.append((device, sessions))
        envelopes.append(_envelope(device, sessions, message))
    if not envelopes:
        raise SessionNotFound("no device to send to")
    for device, sessions in following:
        conversation.put(device, sessions)
        conversation.sent(device, setting.now_ms)
    outcome.encrypted.envelopes.extend(envelopes)
    if keep:
        sealed = setting.content.seal(payload, context, setting.random)
        outcome.encrypted.sealed_payload = sealed


def decrypt(
    conversation: Conversation,
    step: jobs_pb2.Decrypt,
    setting: Setting,
    outcome: jobs_pb2.StepResult,
) -> None:
    """Decrypt one envelope, or ask for the pre-keys that it takes. Raises a `RatchetError`."""
    message = CiphertextMessage(step.type, step.body)
    pre_keys = GivenPreKeys(setting.scope_key, setting.key_owner, step.pre_keys, setting.spent)
    remote = Address(setting.remote_name, step.device_id)
    retired = _open_retired(conversation, step.device_id, message, remote, pre_keys, setting)
    sessions = conversation.sessions(step.device_id)
    try:
        opened = retired or _open(
            sessions, message, remote, conversation.identity_key, pre_keys, setting
        )
    except UntrustedIdentity:
        if message.type != MessageType.PRE_KEY:
            raise
        # Accept and tell. The old sessions take no part: they are forgotten if this one opens.
        opened = _open(None, message, remote, None, pre_keys, setting)
    if isinstance(opened, list):
        _ask_for(opened, outcome.pre_keys_needed)
        return
    changed = conversation.accept_identity(
        opened.remote_identity, hold=setting.hold_identity_changes
    )
    if retired is not None:
        conversation.put_retired(step.device_id, retired.record)
    else:
        conversation.put(step.device_id, opened.record)
        conversation.heard(step.device_id)
        conversation.drop_retired(step.device_id)
    told = _tell(opened.plaintext, step.content_context, setting, outcome)
    if changed:
        told.identity_changed = True
    if conversation.identity_unconfirmed:
        told.identity_unconfirmed = True
    if opened.used is not None:
        pre_keys.settle(opened.used, told)


def drop_devices(
    conversation: Conversation, step: jobs_pb2.DropDevices, outcome: jobs_pb2.StepResult
) -> None:
    """Forget devices."""
    conversation.forget(step.device_ids)
    outcome.devices_dropped.SetInParent()


def _open_retired(
    conversation: Conversation,
    device: int,
    message: CiphertextMessage,
    remote: Address,
    pre_keys: GivenPreKeys,
    setting: Setting,
) -> Decrypted | None:
    """What a retired session makes of a message, which stays retired; None: it is not for one."""
    retired = conversation.retired(device)
    if retired is None or needed_pre_keys(retired, message) is not None:
        return None
    try:
        opened = _open(retired, message, remote, conversation.identity_key, pre_keys, setting)
    except (InvalidMessage, SessionNotFound):
        if message.type == MessageType.PRE_KEY:
            raise  # it names a session that is retired
        return None
    return opened if isinstance(opened, Decrypted) else None


def _may_send(
    conversation: Conversation, device: int, sessions: SessionRecord | None, setting: Setting
) -> bool:
    """Whether the current session is good to send with. One that nobody answers heals no more from
    a stolen state; one without the required post-quantum ratchet was made under another policy."""
    if setting.local.post_quantum is PostQuantumPolicy.REQUIRED and not (
        sessions is not None and sessions.is_post_quantum
    ):
        return False
    since = conversation.unanswered_since(device)
    return since is None or since >= setting.unanswered_limit_ms


def _open(
    sessions: SessionRecord | None,
    message: CiphertextMessage,
    remote: Address,
    trusted_identity: bytes | None,
    pre_keys: GivenPreKeys,
    setting: Setting,
) -> Decrypted | list[Space]:
    needed = needed_pre_keys(sessions, message)
    if needed is not None and (missing := pre_keys.missing(needed)):
        return missing
    return ratchet_decrypt(
        sessions,
        local=setting.local,
        remote=remote,
        message=message,
        trusted_identity=trusted_identity,
        pre_keys=pre_keys,
        now_ms=setting.now_ms,
        random=setting.random,
    )


def _tell(
    plaintext: bytes, context: bytes, setting: Setting, outcome: jobs_pb2.StepResult
) -> jobs_pb2.Decrypted:
    """Say what the payload is, sealed if it is a message; where the rest can be told too."""
    told = outcome.decrypted
    try:
        read_payload(plaintext, told)
    except BadPayload:
        outcome.failure.name = "BadPayload"  # one of a kind: clears `decrypted`
        return outcome.failure.opened
    if told.kind == jobs_pb2.PAYLOAD_KIND_MESSAGE:
        told.sealed_payload = setting.content.seal(plaintext, context, setting.random)
    return told


def _ask_for(missing: list[Space], needed: jobs_pb2.PreKeysNeeded) -> None:
    for kind, key_id in missing:
        needed.keys.add(kind=kind, key_id=key_id)


def _parse_bundle(data: bytes, identity_key: bytes) -> PreKeyBundle:
    try:
        bundle = keys_pb2.DeviceBundle.FromString(data)
    except DecodeError:
        raise BadBundle from None
    one_time = bundle.one_time_pre_key if bundle.HasField("one_time_pre_key") else None
    return PreKeyBundle(
        registration_id=bundle.registration_id,
        device_id=bundle.device_id,
        identity_key=identity_key,
        signed_pre_key_id=bundle.signed_pre_key.key_id,
        signed_pre_key=bundle.signed_pre_key.public_key,
        signed_pre_key_signature=bundle.signed_pre_key.signature,
        kyber_pre_key_id=bundle.kyber_pre_key.key_id,
        kyber_pre_key=bundle.kyber_pre_key.public_key,
        kyber_pre_key_signature=bundle.kyber_pre_key.signature,
        pre_key_id=None if one_time is None else one_time.key_id,
        pre_key=None if one_time is None else one_time.public_key,
    )


def _envelope(device: int, sessions: SessionRecord, message: CiphertextMessage) -> bytes:
    return mailbox_pb2.DeviceEnvelope(
        device_id=device,
        registration_id=cast("int", sessions.remote_registration_id),  # it has a current session
        type=message.type,
        body=message.body,
    ).SerializeToString()
