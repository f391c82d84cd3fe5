"""A device's ratchet sessions: who has which devices, encrypting for all of them, decrypting.

Works on memory and notes the rows that changed; nothing of what it returns may leave the device
before those rows are committed (I1 in docs/architecture.md). A step that raises has changed
nothing. Knows no network. Trust is on first use; a changed identity is accepted and told, never
passed over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tripleratchet import (
    Address,
    CiphertextMessage,
    IdentityKeyPair,
    LocalParty,
    MessageType,
    PreKeyBundle,
    Random,
    RatchetError,
    SafetyNumber,
    SessionNotFound,
    SessionRecord,
    UntrustedIdentity,
    decrypt,
    encrypt,
    process_bundle,
)

from letterlock.device.keys import OwnKeys
from letterlock.device.rows import PEER, SESSION, WAITING, Account, Rows, ratchet_name
from letterlock.errors import BadPreKeys
from letterlock.relay.v1 import keys_pb2, mailbox_pb2
from letterlock.safety import safety_number_of

Peer = tuple[bytes, int]
"""An account (16 bytes) and one of its devices."""


STALE_MS = 30 * 24 * 3600 * 1000
"""How long a session is sent with while nothing comes back on it: it heals no more from a stolen
state, and the pre-keys that a new one names may be destroyed by then."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A decrypted message; `identity_changed`: its sender's key is not the one seen before."""

    plaintext: bytes = field(repr=False)
    identity_changed: bool


class Sessions:
    """All sessions of one device."""

    def __init__(
        self,
        account: Account,
        keys: OwnKeys,
        rows: Rows,
        stored: dict[bytes, bytes],
        random: Random,
    ) -> None:
        """`stored`: all rows of the device. Raises CorruptRecord."""
        self._own = LocalParty(
            Address(ratchet_name(account.account_id), account.device_id),
            IdentityKeyPair.from_private(account.identity_private),
            account.registration_id,
        )
        self._account_id = account.account_id
        self._keys = keys
        self._rows = rows
        self._random = random
        self._identities: dict[bytes, bytes] = {}
        self._records: dict[bytes, dict[int, SessionRecord]] = {}
        self._addresses: dict[Peer, Address] = {}
        self._changed: set[Peer] = set()
        self._waiting: dict[Peer, int] = {}
        for name, value in stored.items():
            if name.startswith(PEER):
                self._identities[name[len(PEER) :]] = value
            elif name.startswith(SESSION):
                account_id, device = name[len(SESSION) : -1], name[-1]
                record = SessionRecord.from_bytes(value)
                self._records.setdefault(account_id, {})[device] = record
            elif name.startswith(WAITING):
                peer = name[len(WAITING) : -1], name[-1]
                self._waiting[peer] = int.from_bytes(value, "big")

    def devices(self, account_id: bytes, now_ms: int) -> list[int]:
        """The devices of an account that can be encrypted for now: those whose session is neither
        stale nor without the post-quantum ratchet. The relay names the others as missing."""
        oldest_ms = now_ms - STALE_MS
        return [
            device
            for device, record in self._devices(account_id).items()
            if record.is_post_quantum
            and self._waiting.get((account_id, device), now_ms) >= oldest_ms
        ]

    def identity(self, account_id: bytes) -> bytes | None:
        """The identity key (33 bytes) last seen of an account."""
        return self._identities.get(account_id)

    def safety_number(self, account_id: bytes) -> SafetyNumber | None:
        """The safety number with an account; None while its identity key is not known."""
        identity = self._identities.get(account_id)
        if identity is None:
            return None
        own = self._own.identity.public
        return safety_number_of(self._account_id, own, account_id, identity)

    def start(self, bundles: keys_pb2.AccountBundles, now_ms: int) -> bool:
        """Start a session with each device of the bundles; True when the identity is a new one.

        Raises BadPreKeys when any of them does not verify: then none is started.
        """
        account_id, identity = bundles.account_id, bundles.identity_key
        known = self._identities.get(account_id)
        changed = known is not None and known != identity
        started: dict[int, SessionRecord] = {}
        for device in bundles.devices:
            started[device.device_id] = self._start_one(bundles, device, now_ms)
        self._accept_identity(account_id, identity)
        for device_id, record in started.items():
            self._put((account_id, device_id), record)
            self._heard((account_id, device_id))
        return changed

    def forget(self, account_id: bytes, devices: Iterable[int]) -> None:
        """Drop the sessions with devices that do not exist any more."""
        for device in devices:
            if self._devices(account_id).pop(device, None) is not None:
                self._changed.discard((account_id, device))
                self._heard((account_id, device))
                self._rows.delete(_row(account_id, device))

    def archive(self, account_id: bytes, devices: Iterable[int]) -> None:
        """Send nothing more on the sessions with these devices; late messages still open."""
        for device in devices:
            record = self._devices(account_id).get(device)
            if record is not None and record.has_current:
                self._put((account_id, device), record.archive())

    def archive_sending(self, account_id: bytes, device: int, ratchet_key: bytes) -> bool:
        """archive(), if the session with a device sends under this ratchet key of ours."""
        record = self._devices(account_id).get(device)
        if record is None or not record.sends_under(ratchet_key):
            return False
        self._put((account_id, device), record.archive())
        return True

    def archive_receiving(self, account_id: bytes, device: int, ratchet_key: bytes) -> bool:
        """archive(), if what comes now from a device comes under this ratchet key of theirs."""
        record = self._devices(account_id).get(device)
        if record is None or not record.receives_under(ratchet_key):
            return False
        self._put((account_id, device), record.archive())
        return True

    def encrypt(
        self, account_id: bytes, device: int, plaintext: bytes, now_ms: int
    ) -> mailbox_pb2.DeviceEnvelope:
        """Encrypt for one device. Raises SessionNotFound: start one from a bundle."""
        peer = (account_id, device)
        record = self._devices(account_id).get(device)
        following, message = encrypt(
            record,
            local=self._own,
            remote=self._address(peer),
            plaintext=plaintext,
            trusted_identity=self._identities.get(account_id),
            now_ms=now_ms,
            random=self._random,
        )
        self._put(peer, following)
        self._sent(peer, now_ms)
        return mailbox_pb2.DeviceEnvelope(
            device_id=device,
            registration_id=following.remote_registration_id or 0,
            type=message.type,
            body=message.body,
        )

    def decrypt(self, envelope: mailbox_pb2.Envelope, now_ms: int) -> Opened:
        """Decrypt what a device sent. Raises RatchetError; DuplicatedMessage: it came before."""
        account_id = envelope.sender_account_id
        peer = (account_id, envelope.sender_device_id)
        known = self._identities.get(account_id)
        result = decrypt(
            self._devices(account_id).get(envelope.sender_device_id),
            local=self._own,
            remote=self._address(peer),
            message=CiphertextMessage(envelope.type, envelope.body),
            # Only a first message can bring a new identity; an ordinary one proves nothing new.
            trusted_identity=None if envelope.type == MessageType.PRE_KEY else known,
            pre_keys=self._keys,
            now_ms=now_ms,
            random=self._random,
        )
        # The session's identity, not the one that the outer message names: for a session that
        # exists already the outer one is not authenticated, and the relay could write anything.
        identity = result.record.remote_identity_key
        if identity is None:
            raise SessionNotFound("no session after decrypting")
        changed = known is not None and identity != known
        if changed and result.used is None:
            raise UntrustedIdentity("a late message under a former identity")
        if result.used is not None:
            self._keys.used(result.used)
        self._accept_identity(account_id, identity)
        self._put(peer, result.record)
        self._heard(peer)
        return Opened(result.plaintext, changed)

    def note_rows(self) -> None:
        """Encode what changed since the last call into rows: once per commit, however many
        messages the commit covers."""
        for account_id, device in self._changed:
            devices = self._records[account_id]
            record = devices[device] = devices[device].rested()
            self._rows.put(_row(account_id, device), record.to_bytes())
        self._changed.clear()

    def _start_one(
        self, bundles: keys_pb2.AccountBundles, device: keys_pb2.DeviceBundle, now_ms: int
    ) -> SessionRecord:
        peer = (bundles.account_id, device.device_id)
        has_one_time = device.HasField("one_time_pre_key")
        bundle = PreKeyBundle(
            registration_id=device.registration_id,
            device_id=device.device_id,
            identity_key=bundles.identity_key,
            signed_pre_key_id=device.signed_pre_key.key_id,
            signed_pre_key=device.signed_pre_key.public_key,
            signed_pre_key_signature=device.signed_pre_key.signature,
            kyber_pre_key_id=device.kyber_pre_key.key_id,
            kyber_pre_key=device.kyber_pre_key.public_key,
            kyber_pre_key_signature=device.kyber_pre_key.signature,
            pre_key_id=device.one_time_pre_key.key_id if has_one_time else None,
            pre_key=device.one_time_pre_key.public_key if has_one_time else None,
        )
        try:
            return process_bundle(
                self._devices(bundles.account_id).get(device.device_id),
                local=self._own,
                remote=self._address(peer),
                bundle=bundle,
                trusted_identity=None,
                now_ms=now_ms,
                random=self._random,
            )
        except RatchetError as error:
            raise BadPreKeys(f"pre-keys do not verify: {error.reason}") from None

    def _accept_identity(self, account_id: bytes, identity: bytes) -> None:
        known = self._identities.get(account_id)
        if known == identity:
            return
        if known is not None:
            self.archive(account_id, list(self._devices(account_id)))
        self._identities[account_id] = identity
        self._rows.put(PEER + account_id, identity)

    def _put(self, peer: Peer, record: SessionRecord) -> None:
        if peer not in self._addresses:
            self._addresses[peer] = self._address(peer)
        self._records.setdefault(peer[0], {})[peer[1]] = record
        self._changed.add(peer)

    def _sent(self, peer: Peer, now_ms: int) -> None:
        # A time in the future says that the clock went back, and begins again.
        if self._waiting.get(peer, now_ms + 1) > now_ms:
            self._waiting[peer] = now_ms
            self._rows.put(_waiting_row(*peer), now_ms.to_bytes(8, "big"))

    def _heard(self, peer: Peer) -> None:
        if self._waiting.pop(peer, None) is not None:
            self._rows.delete(_waiting_row(*peer))

    def _devices(self, account_id: bytes) -> dict[int, SessionRecord]:
        # A sender whose message does not open leaves nothing behind, or strangers fill the memory.
        return self._records.get(account_id, {})

    def _address(self, peer: Peer) -> Address:
        return self._addresses.get(peer) or Address(ratchet_name(peer[0]), peer[1])


def _row(account_id: bytes, device: int) -> bytes:
    return SESSION + account_id + bytes([device])


def _waiting_row(account_id: bytes, device: int) -> bytes:
    return WAITING + account_id + bytes([device])
