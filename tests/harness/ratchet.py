"""Two parties of the ratchet in one process, with stores as a caller would keep them.

Deterministic where a seed is given. Every operation goes through the record's bytes, and a refused
one is checked to have left them alone.
"""

from __future__ import annotations

import random as random_module
from dataclasses import dataclass, field

import tripleratchet as tr

ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
"""The u-coordinates of order 8."""
NOW_MS = 1_700_000_000_000


@dataclass
class Keyring:
    """Private pre-keys by id, with one-time deletion and the memory of used Kyber keys."""

    ec: dict[int, tr.PreKey] = field(default_factory=dict)
    signed: dict[int, tr.SignedPreKey] = field(default_factory=dict)
    kyber: dict[int, tr.KyberPreKey] = field(default_factory=dict)
    seen: set[tuple[int, int, bytes]] = field(default_factory=set)

    def pre_key(self, id_: int, /) -> tr.PreKey:
        if id_ not in self.ec:
            raise tr.InvalidPreKeyId("unknown")
        return self.ec[id_]

    def signed_pre_key(self, id_: int, /) -> tr.SignedPreKey:
        if id_ not in self.signed:
            raise tr.InvalidSignedPreKeyId("unknown")
        return self.signed[id_]

    def kyber_pre_key(self, id_: int, /) -> tr.KyberPreKey:
        if id_ not in self.kyber:
            raise tr.InvalidKyberPreKeyId("unknown")
        return self.kyber[id_]

    def use(self, used: tr.UsedPreKeys) -> None:
        triple = (used.kyber_pre_key_id, used.signed_pre_key_id, used.base_key)
        if triple in self.seen:
            raise tr.InvalidMessage("replay of a last-resort pre-key message")
        self.seen.add(triple)
        if used.pre_key_id is not None:
            del self.ec[used.pre_key_id]


@dataclass
class Device:
    """One party: identity, pre-keys, and its stored records and accepted identities by address."""

    local: tr.LocalParty
    random: tr.Random
    keyring: Keyring = field(default_factory=Keyring)
    records: dict[tr.Address, bytes] = field(default_factory=dict)
    trusted: dict[tr.Address, bytes] = field(default_factory=dict)
    now_ms: int = NOW_MS

    @classmethod
    def create(
        cls,
        name: str,
        number: int = 1,
        seed: int = 0,
        policy: tr.PostQuantumPolicy = tr.PostQuantumPolicy.REQUIRED,
    ) -> Device:
        """A device whose keys all come from `seed` (but for KEM encapsulation)."""
        random = random_module.Random(f"{seed} {name} {number}").randbytes
        identity = tr.IdentityKeyPair.generate(random)
        local = tr.LocalParty(tr.Address(name, number), identity, 1000 + number, policy)
        return cls(local, random)

    @property
    def address(self) -> tr.Address:
        return self.local.address

    def record(self, other: Device) -> tr.SessionRecord | None:
        """The stored record, opened."""
        stored = self.records.get(other.address)
        return None if stored is None else tr.SessionRecord.from_bytes(stored)

    def bundle(
        self, *, one_time: int | None = 1, signed: int = 1, kyber: int = 1
    ) -> tr.PreKeyBundle:
        """Make the named pre-keys where they are missing, and publish them."""
        keyring, identity = self.keyring, self.local.identity
        if signed not in keyring.signed:
            keyring.signed[signed] = tr.generate_signed_pre_key(identity, signed, self.random)
        if kyber not in keyring.kyber:
            keyring.kyber[kyber] = tr.generate_kyber_pre_key(identity, kyber, self.random)
        if one_time is not None:
            keyring.ec[one_time] = tr.generate_pre_key(one_time, self.random)
        return tr.PreKeyBundle(
            registration_id=self.local.registration_id,
            device_id=self.address.device,
            identity_key=identity.public,
            signed_pre_key_id=signed,
            signed_pre_key=keyring.signed[signed].public,
            signed_pre_key_signature=keyring.signed[signed].signature,
            kyber_pre_key_id=kyber,
            kyber_pre_key=keyring.kyber[kyber].public,
            kyber_pre_key_signature=keyring.kyber[kyber].signature,
            pre_key_id=one_time,
            pre_key=None if one_time is None else keyring.ec[one_time].public,
        )

    def start(self, other: Device, bundle: tr.PreKeyBundle | None = None) -> None:
        """Start a session with `other` from a bundle (by default a fresh one)."""
        self.records[other.address] = tr.process_bundle(
            self.record(other),
            local=self.local,
            remote=other.address,
            bundle=other.bundle() if bundle is None else bundle,
            trusted_identity=self.trusted.get(other.address),
            now_ms=self.now_ms,
            random=self.random,
        ).to_bytes()

    def encrypt(self, other: Device, plaintext: bytes) -> tr.CiphertextMessage:
        record, message = tr.encrypt(
            self.record(other),
            local=self.local,
            remote=other.address,
            plaintext=plaintext,
            trusted_identity=self.trusted.get(other.address),
            now_ms=self.now_ms,
            random=self.random,
        )
        self.records[other.address] = record.to_bytes()
        return message

    def decrypt(self, other: Device, message: tr.CiphertextMessage) -> bytes:
        opened = self.record(other)
        try:
            decrypted = tr.decrypt(
                opened,
                local=self.local,
                remote=other.address,
                message=message,
                trusted_identity=self.trusted.get(other.address),
                pre_keys=self.keyring,
                now_ms=self.now_ms,
                random=self.random,
            )
        except tr.RatchetError:
            assert opened is None or opened.to_bytes() == self.records[other.address]
            raise
        if decrypted.used is not None:
            self.keyring.use(decrypted.used)
        self.records[other.address] = decrypted.record.to_bytes()
        self.trusted[other.address] = decrypted.remote_identity
        return decrypted.plaintext

    def archive(self, other: Device) -> None:
        record = self.record(other)
        if record is not None:
            self.records[other.address] = record.archive().to_bytes()


def pair(
    seed: int = 0,
    *,
    acknowledged: bool = True,
    policy: tr.PostQuantumPolicy = tr.PostQuantumPolicy.REQUIRED,
) -> tuple[Device, Device]:
    """Two devices with a session, initiator first; answered once unless told otherwise."""
    one = Device.create("9d0652a3-dcc3-4d11-975f-74d61598733f", seed=seed, policy=policy)
    other = Device.create("6838237d-02f6-4098-b110-698253d15961", seed=seed, policy=policy)
    one.start(other)
    if acknowledged:
        other.decrypt(one, one.encrypt(other, b"hello"))
        one.decrypt(other, other.encrypt(one, b"hello back"))
    return one, other
