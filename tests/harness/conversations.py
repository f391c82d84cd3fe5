"""A business number as the gateway keeps it (sealed rows, nothing opened), and user devices that
talk to it; everything in between is jobs. For tests and bench of the workers.
"""

from __future__ import annotations

import os
import random as random_module
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import tripleratchet as tr
from letterlock.content.padding import pad
from letterlock.content.v1 import content_pb2
from letterlock.relay.v1 import keys_pb2, mailbox_pb2
from letterlockd.model.ids import AccountId, new_message_id, ratchet_name
from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.execute import execute

from tests.harness.ratchet import NOW_MS, Device

Run = Callable[[jobs_pb2.Job], jobs_pb2.JobResult]
"""Answers a job: in this process, or through a pool."""


def run_here(job: jobs_pb2.Job) -> jobs_pb2.JobResult:
    """Execute in this process; a bug's exception comes through."""

    def fail(error: BaseException) -> None:
        raise error

    return jobs_pb2.JobResult.FromString(execute(job.SerializeToString(), os.urandom, fail))


@dataclass
class Number:
    """A business number: keys as its rows hold them."""

    account: bytes
    scope_key: bytes
    sealed_identity: bytes
    identity_key: bytes
    registration_id: int
    upload: keys_pb2.PreKeyUpload
    pre_keys: dict[tuple[int, int], jobs_pb2.SealedPreKey]
    day_key: bytes = field(default_factory=lambda: os.urandom(32))

    @classmethod
    def create(cls, run: Run = run_here, one_time: int = 5, kyber: int = 0) -> Number:
        """A number with a signed (id 1), a last-resort (id 1000) and one-time pre-keys (from 1)."""
        account, scope_key = os.urandom(16), os.urandom(32)
        task = jobs_pb2.KeyTask(
            scope_key=scope_key,
            account_id=account,
            signed_key_id=1,
            last_resort_key_id=1000,
            one_time_key_ids=range(1, one_time + 1),
            one_time_kyber_key_ids=range(1, kyber + 1),
        )
        made = run(jobs_pb2.Job(keys=task)).keys
        return cls(
            account,
            scope_key,
            made.sealed_identity,
            made.identity_key,
            made.registration_id,
            keys_pb2.PreKeyUpload.FromString(made.upload),
            {(key.kind, key.key_id): key for key in made.pre_keys},
        )

    @property
    def address(self) -> tr.Address:
        return tr.Address(ratchet_name(AccountId(self.account)), 1)

    def bundle(self, one_time: int | None = 1, kyber: int | None = None) -> tr.PreKeyBundle:
        """The bundle with these one-time keys; without a Kyber one, the last-resort key."""
        upload = self.upload
        signed, last = upload.signed_pre_key, upload.last_resort_kyber_pre_key
        chosen = last if kyber is None else upload.one_time_kyber_pre_keys[kyber - 1]
        ec = None if one_time is None else upload.one_time_pre_keys[one_time - 1]
        return tr.PreKeyBundle(
            registration_id=self.registration_id,
            device_id=1,
            identity_key=self.identity_key,
            signed_pre_key_id=signed.key_id,
            signed_pre_key=signed.public_key,
            signed_pre_key_signature=signed.signature,
            kyber_pre_key_id=chosen.key_id,
            kyber_pre_key=chosen.public_key,
            kyber_pre_key_signature=chosen.signature,
            pre_key_id=None if ec is None else ec.key_id,
            pre_key=None if ec is None else ec.public_key,
        )

    def find(self, asked: Iterable[jobs_pb2.SealedPreKey]) -> list[jobs_pb2.SealedPreKey]:
        """The rows of the keys that a worker asks for; those that are gone come without bytes."""
        return [self._find(key) for key in asked]

    def _find(self, asked: jobs_pb2.SealedPreKey) -> jobs_pb2.SealedPreKey:
        kinds = [asked.kind]
        if asked.kind == jobs_pb2.PRE_KEY_KIND_KYBER_ONE_TIME:
            kinds.append(jobs_pb2.PRE_KEY_KIND_KYBER_LAST_RESORT)
        found = (self.pre_keys.get((kind, asked.key_id)) for kind in kinds)
        return next((key for key in found if key is not None), asked)


@dataclass
class User:
    """A user account with its devices, which share one identity."""

    account: bytes
    devices: dict[int, Device]

    @classmethod
    def create(cls, devices: Sequence[int] = (1,), account: bytes | None = None) -> User:
        account = os.urandom(16) if account is None else account
        name = ratchet_name(AccountId(account))
        identity = tr.IdentityKeyPair.generate(os.urandom)
        return cls(
            account,
            {
                device: Device(
                    tr.LocalParty(tr.Address(name, device), identity, 100 + device),
                    random_module.SystemRandom().randbytes,
                )
                for device in devices
            },
        )

    @property
    def identity_key(self) -> bytes:
        return next(iter(self.devices.values())).local.identity.public

    def bundle(self, device: int) -> bytes:
        """A serialised DeviceBundle with a fresh one-time key."""
        party = self.devices[device]
        made = party.bundle(one_time=len(party.keyring.ec) + 1)
        bundle = keys_pb2.DeviceBundle(
            device_id=device,
            registration_id=made.registration_id,
            signed_pre_key=keys_pb2.SignedPreKey(
                key_id=made.signed_pre_key_id,
                public_key=made.signed_pre_key,
                signature=made.signed_pre_key_signature,
            ),
            kyber_pre_key=keys_pb2.KyberPreKey(
                key_id=made.kyber_pre_key_id,
                public_key=made.kyber_pre_key,
                signature=made.kyber_pre_key_signature,
            ),
        )
        if made.pre_key is not None and made.pre_key_id is not None:
            bundle.one_time_pre_key.key_id = made.pre_key_id
            bundle.one_time_pre_key.public_key = made.pre_key
        return bundle.SerializeToString()

    def establish(self, devices: Sequence[int] | None = None, **fields: bool) -> jobs_pb2.Step:
        """The step that opens sessions with these devices (default: all)."""
        chosen = self.devices if devices is None else devices
        bundles = [self.bundle(device) for device in chosen]
        step = jobs_pb2.Establish(identity_key=self.identity_key, bundles=bundles, **fields)
        return jobs_pb2.Step(establish=step)


STALE_MS = 30 * 24 * 3600 * 1000


@dataclass
class Talk:
    """One conversation: its sealed row, and how to work on it."""

    number: Number
    user: User
    run: Run = run_here
    conversation: bytes = field(default_factory=lambda: os.urandom(32))
    sealed_record: bytes = b""
    now_ms: int = NOW_MS
    generation: int = 0

    def task(self, *steps: jobs_pb2.Step) -> jobs_pb2.ConversationTask:
        """A task on the row as it is now."""
        return jobs_pb2.ConversationTask(
            conversation=self.conversation,
            sealed_record=self.sealed_record,
            scope_key=self.number.scope_key,
            sealed_identity=self.number.sealed_identity,
            day_key=self.number.day_key,
            user_account_id=self.user.account,
            business_account_id=self.number.account,
            now_ms=self.now_ms,
            generation=self.generation,
            unanswered_limit_ms=self.now_ms - STALE_MS,
            steps=steps,
        )

    def commit(self, result: jobs_pb2.ConversationResult) -> None:
        """Store what a result brings."""
        if result.sealed_record:
            self.sealed_record = result.sealed_record

    def work(self, *steps: jobs_pb2.Step) -> list[jobs_pb2.StepResult]:
        """Work steps and commit."""
        (result,) = self.run(jobs_pb2.Job(tasks=[self.task(*steps)])).results
        self.commit(result)
        return list(result.steps)

    def step(self, step: jobs_pb2.Step) -> jobs_pb2.StepResult:
        """Work one step, bringing the pre-keys that it asks for, and commit."""
        (result,) = self.work(step)
        if result.HasField("pre_keys_needed"):
            step.decrypt.pre_keys.extend(self.number.find(result.pre_keys_needed.keys))
            (result,) = self.work(step)
        opened = result.decrypted if result.HasField("decrypted") else result.failure.opened
        for used in opened.used_pre_keys:
            del self.number.pre_keys[used.kind, used.key_id]
        return result

    def send(self, payload: bytes) -> list[mailbox_pb2.DeviceEnvelope]:
        """Encrypt for the user's devices."""
        return envelopes(self.step(encrypt_step(payload)))

    def envelope(self, device: int, plaintext: bytes) -> jobs_pb2.Step:
        """The user's device encrypts; the step that decrypts it."""
        party = self.user.devices[device]
        record, message = tr.encrypt(
            tr.SessionRecord.from_bytes(party.records[self.number.address]),
            local=party.local,
            remote=self.number.address,
            plaintext=plaintext,
            now_ms=self.now_ms,
            random=party.random,
        )
        party.records[self.number.address] = record.to_bytes()
        return decrypt_step(device, message.type, message.body, self.context(bytes(16)))

    def start_from(self, device: int, bundle: tr.PreKeyBundle | None = None) -> None:
        """The user's device opens a session with the business."""
        party, there = self.user.devices[device], self.number.address
        former = party.records.get(there)
        party.records[there] = tr.process_bundle(
            None if former is None else tr.SessionRecord.from_bytes(former),
            local=party.local,
            remote=there,
            bundle=bundle or self.number.bundle(),
            trusted_identity=None,
            now_ms=self.now_ms,
            random=party.random,
        ).to_bytes()

    def receive(self, envelope: mailbox_pb2.DeviceEnvelope) -> bytes:
        """The user's device decrypts an envelope; its record moves on."""
        party, there = self.user.devices[envelope.device_id], self.number.address
        former = party.records.get(there)
        opened = tr.decrypt(
            None if former is None else tr.SessionRecord.from_bytes(former),
            local=party.local,
            remote=there,
            message=tr.CiphertextMessage(envelope.type, envelope.body),
            trusted_identity=None,
            pre_keys=party.keyring,
            now_ms=self.now_ms,
            random=party.random,
        )
        party.records[there] = opened.record.to_bytes()
        return opened.plaintext

    def context(self, message_id: bytes) -> bytes:
        """What content of this conversation is sealed with."""
        return self.conversation + message_id


def encrypt_step(payload: bytes, context: bytes = b"") -> jobs_pb2.Step:
    """Encrypt a payload; with a context, seal it too."""
    return jobs_pb2.Step(encrypt=jobs_pb2.Encrypt(payload=payload, content_context=context))


def decrypt_step(device: int, kind: int, body: bytes, context: bytes) -> jobs_pb2.Step:
    """Decrypt an envelope's body."""
    return jobs_pb2.Step(
        decrypt=jobs_pb2.Decrypt(device_id=device, type=kind, body=body, content_context=context)
    )


def envelopes(result: jobs_pb2.StepResult) -> list[mailbox_pb2.DeviceEnvelope]:
    """The envelopes of an encrypt step."""
    return [mailbox_pb2.DeviceEnvelope.FromString(data) for data in result.encrypted.envelopes]


def text_payload(text: str = "hello", message_id: bytes | None = None) -> bytes:
    """A padded text."""
    payload = content_pb2.Payload(
        message_id=message_id or new_message_id(NOW_MS, os.urandom),
        content=content_pb2.Content(text=content_pb2.Text(body=text)),
    )
    payload.sent_time.FromMilliseconds(NOW_MS)
    return pad(payload)
