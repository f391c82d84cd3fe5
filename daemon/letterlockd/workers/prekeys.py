"""The private pre-keys that came with one decrypt step, for the ratchet to look up.

A key that was given without its bytes does not exist any more; one that a step of the same task
has used up is gone too, though its row is not deleted before the task's commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from tripleratchet import (
    InvalidKyberPreKeyId,
    InvalidPreKeyId,
    InvalidSignedPreKeyId,
    KyberPreKey,
    NeededPreKeys,
    PreKey,
    SignedPreKey,
    UsedPreKeys,
)

from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.sealed import open_pre_key

__all__ = ["GivenPreKeys", "Space", "last_resort_use"]

ONE_TIME = jobs_pb2.PRE_KEY_KIND_ONE_TIME
SIGNED = jobs_pb2.PRE_KEY_KIND_SIGNED
KYBER = jobs_pb2.PRE_KEY_KIND_KYBER_ONE_TIME
LAST_RESORT = jobs_pb2.PRE_KEY_KIND_KYBER_LAST_RESORT

Space = tuple[jobs_pb2.PreKeyKind.ValueType, int]
"""A key's place: kind (KYBER for both Kyber kinds, which share their ids) and id."""


class GivenPreKeys:
    """Implements `tripleratchet.PreKeys`. `spent` holds what earlier steps used up."""

    def __init__(
        self,
        scope_key: bytes,
        account: bytes,
        given: Iterable[jobs_pb2.SealedPreKey],
        spent: set[Space],
    ) -> None:
        self._scope_key = scope_key
        self._account = account
        self._given = {(_shared(key.kind), key.key_id): key for key in given}
        self._spent = spent

    def missing(self, needed: NeededPreKeys) -> list[Space]:
        """The keys of `needed` that the step did not bring."""
        wanted = [(SIGNED, needed.signed_pre_key_id), (KYBER, needed.kyber_pre_key_id)]
        if needed.pre_key_id is not None:
            wanted.append((ONE_TIME, needed.pre_key_id))
        return [space for space in wanted if space not in self._given]

    def signed_pre_key(self, id: int, /) -> SignedPreKey:  # noqa: A002
        """Raises InvalidSignedPreKeyId, `Unreadable`."""
        private = self._private((SIGNED, id))
        if private is None:
            raise InvalidSignedPreKeyId("signed pre-key does not exist")
        return SignedPreKey.from_private(id, private, b"")

    def kyber_pre_key(self, id: int, /) -> KyberPreKey:  # noqa: A002
        """Raises InvalidKyberPreKeyId, `Unreadable`."""
        private = self._private((KYBER, id))
        if private is None:
            raise InvalidKyberPreKeyId("Kyber pre-key does not exist")
        return KyberPreKey.from_private(id, private, b"")

    def pre_key(self, id: int, /) -> PreKey:  # noqa: A002
        """Raises InvalidPreKeyId, `Unreadable`."""
        private = self._private((ONE_TIME, id))
        if private is None:
            raise InvalidPreKeyId("one-time pre-key does not exist")
        return PreKey.from_private(id, private)

    def settle(self, used: UsedPreKeys, told: jobs_pb2.Decrypted) -> None:
        """Note in `told` what a new session used up, and remember it as spent."""
        spaces: list[Space] = []
        if used.pre_key_id is not None:
            spaces.append((ONE_TIME, used.pre_key_id))
        if self._given[KYBER, used.kyber_pre_key_id].kind == LAST_RESORT:
            told.last_resort_use = last_resort_use(used)
        else:
            spaces.append((KYBER, used.kyber_pre_key_id))
        for kind, key_id in spaces:
            told.used_pre_keys.add(kind=kind, key_id=key_id)
        self._spent.update(spaces)

    def _private(self, space: Space) -> bytes | None:
        given = self._given.get(space)
        if given is None or not given.sealed or space in self._spent:
            return None
        return open_pre_key(self._scope_key, self._account, given)


def last_resort_use(used: UsedPreKeys) -> bytes:
    """SHA-256 over Kyber id, signed id and base key: what the owner must remember (section 5)."""
    ids = used.kyber_pre_key_id.to_bytes(4, "big") + used.signed_pre_key_id.to_bytes(4, "big")
    return hashlib.sha256(ids + used.base_key).digest()


def _shared(kind: jobs_pb2.PreKeyKind.ValueType) -> jobs_pb2.PreKeyKind.ValueType:
    return KYBER if kind == LAST_RESORT else kind
