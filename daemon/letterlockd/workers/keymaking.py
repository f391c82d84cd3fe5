"""Makes a business number's identity and pre-keys: private halves sealed, public halves to publish.

In a worker, because a hundred Kyber keys with their signatures take some 50 ms of computing.
Source: facts/signal-session.md sections 4 and 5.
"""

from __future__ import annotations

from letterlock.relay.v1 import keys_pb2
from tripleratchet import (
    IdentityKeyPair,
    KyberPreKey,
    Random,
    generate_kyber_pre_key,
    generate_pre_key,
    generate_signed_pre_key,
)

from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.sealed import open_identity, seal_identity, seal_pre_key

__all__ = ["make_keys"]

_REGISTRATION_IDS = 16_380
"""1 to 16,380: what every client and server of the protocol takes."""


def make_keys(task: jobs_pb2.KeyTask, random: Random) -> jobs_pb2.KeyResult:
    """The keys that a task names. Raises `Unreadable` when the identity does not open."""
    maker = _Maker(task, random)
    if task.HasField("signed_key_id"):
        maker.signed(task.signed_key_id)
    if task.HasField("last_resort_key_id"):
        maker.last_resort(task.last_resort_key_id)
    for key_id in task.one_time_key_ids:
        maker.one_time(key_id)
    for key_id in task.one_time_kyber_key_ids:
        maker.one_time_kyber(key_id)
    return maker.result()


class _Maker:
    """Collects both halves of each key."""

    def __init__(self, task: jobs_pb2.KeyTask, random: Random) -> None:
        self._task = task
        self._random = random
        self._upload = keys_pb2.PreKeyUpload()
        self._result = jobs_pb2.KeyResult()
        self._identity = self._open_or_make_identity()

    def signed(self, key_id: int) -> None:
        key = generate_signed_pre_key(self._identity, key_id, self._random)
        self._keep(jobs_pb2.PRE_KEY_KIND_SIGNED, key_id, key.to_private_bytes())
        published = self._upload.signed_pre_key
        published.key_id, published.public_key = key_id, key.public
        published.signature = key.signature

    def last_resort(self, key_id: int) -> None:
        key = generate_kyber_pre_key(self._identity, key_id, self._random)
        self._keep(jobs_pb2.PRE_KEY_KIND_KYBER_LAST_RESORT, key_id, key.to_private_bytes())
        self._upload.last_resort_kyber_pre_key.CopyFrom(_published(key))

    def one_time(self, key_id: int) -> None:
        key = generate_pre_key(key_id, self._random)
        self._keep(jobs_pb2.PRE_KEY_KIND_ONE_TIME, key_id, key.to_private_bytes())
        self._upload.one_time_pre_keys.add(key_id=key_id, public_key=key.public)

    def one_time_kyber(self, key_id: int) -> None:
        key = generate_kyber_pre_key(self._identity, key_id, self._random)
        self._keep(jobs_pb2.PRE_KEY_KIND_KYBER_ONE_TIME, key_id, key.to_private_bytes())
        self._upload.one_time_kyber_pre_keys.append(_published(key))

    def result(self) -> jobs_pb2.KeyResult:
        self._result.upload = self._upload.SerializeToString()
        return self._result

    def _keep(self, kind: jobs_pb2.PreKeyKind.ValueType, key_id: int, private: bytes) -> None:
        task = self._task
        self._result.pre_keys.append(
            seal_pre_key(task.scope_key, task.account_id, kind, key_id, private, self._random)
        )

    def _open_or_make_identity(self) -> IdentityKeyPair:
        task, result = self._task, self._result
        if task.sealed_identity:
            identity, number = open_identity(task.scope_key, task.account_id, task.sealed_identity)
            result.sealed_identity = task.sealed_identity
        else:
            identity = IdentityKeyPair.generate(self._random)
            number = int.from_bytes(self._random(8), "big") % _REGISTRATION_IDS + 1
            result.sealed_identity = seal_identity(
                task.scope_key, task.account_id, identity, number, self._random
            )
        result.identity_key, result.registration_id = identity.public, number
        return identity


def _published(key: KyberPreKey) -> keys_pb2.KyberPreKey:
    return keys_pb2.KyberPreKey(key_id=key.id, public_key=key.public, signature=key.signature)
