"""A device's own pre-keys: made, published, looked up, used, rotated out.

Knows no session and no network; time and randomness are arguments. Every key is in a row before
its public half leaves the device. Source: facts/signal-session.md sections 5 and 17.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from tripleratchet import (
    IdentityKeyPair,
    InvalidKyberPreKeyId,
    InvalidMessage,
    InvalidPreKeyId,
    InvalidSignedPreKeyId,
    KyberPreKey,
    PreKey,
    Random,
    SignedPreKey,
    UsedPreKeys,
    generate_kyber_pre_key,
    generate_pre_key,
    generate_signed_pre_key,
)

from letterlock.device.rows import KEY, NEXT_KEY_ID, UNPUBLISHED, USED, Rows
from letterlock.relay.v1 import keys_pb2

ONE_TIME, SIGNED, ONE_TIME_KYBER, LAST_RESORT = b"1", b"2", b"3", b"4"
_PRIVATE_BYTES = {ONE_TIME: 32, SIGNED: 32, ONE_TIME_KYBER: 64, LAST_RESORT: 64}

MAX_UPLOAD = 100
"""One-time keys of a kind in one upload: the contract's limit."""

MAX_KEPT = 400
"""One-time keys of a kind kept: twice what the directory holds. Fewer, and a first message on its
way might find its key gone; more only gathers keys that were handed out and never used."""

MAX_REMEMBERED_USES = 4_096
"""Uses of last-resort keys remembered. Forgetting one lets the relay replay that first message
into a second session; its message id is still known then."""

ROTATE_MS = 7 * 24 * 3600 * 1000
"""Age at which the signed and the last-resort key are replaced: what one stolen key opens."""

GRACE_MS = 30 * 24 * 3600 * 1000
"""How long a replaced key is kept, from its successor's publication on: bundles and waiting first
messages live 30 days at most, and until then they may have been made for the old key."""

Key = PreKey | SignedPreKey | KyberPreKey


@dataclass(frozen=True, slots=True)
class NewKeys:
    """Keys that were made and are not in use yet; the signed ones may be missing."""

    signed: SignedPreKey | None
    last_resort: KyberPreKey | None
    one_time: tuple[PreKey, ...] = field(repr=False)
    one_time_kyber: tuple[KyberPreKey, ...] = field(repr=False)

    def to_upload(self) -> keys_pb2.PreKeyUpload:
        """The public halves."""
        upload = keys_pb2.PreKeyUpload(
            one_time_pre_keys=[
                keys_pb2.PreKey(key_id=key.id, public_key=key.public) for key in self.one_time
            ],
            one_time_kyber_pre_keys=[_kyber(key) for key in self.one_time_kyber],
        )
        if self.signed is not None:
            upload.signed_pre_key.CopyFrom(
                keys_pb2.SignedPreKey(
                    key_id=self.signed.id,
                    public_key=self.signed.public,
                    signature=self.signed.signature,
                )
            )
        if self.last_resort is not None:
            upload.last_resort_kyber_pre_key.CopyFrom(_kyber(self.last_resort))
        return upload


def make_keys(
    identity: IdentityKeyPair, first_id: int, random: Random, *, signed: bool, ec: int, kyber: int
) -> NewKeys:
    """Fresh keys with ids from `first_id` on, `ec` and `kyber` one-time ones. Takes some 0.3 ms a
    key: call it off the event loop."""
    return NewKeys(
        generate_signed_pre_key(identity, first_id, random) if signed else None,
        generate_kyber_pre_key(identity, first_id, random) if signed else None,
        tuple(generate_pre_key(first_id + 1 + i, random) for i in range(ec)),
        tuple(generate_kyber_pre_key(identity, first_id + 1 + i, random) for i in range(kyber)),
    )


class OwnKeys:
    """The private pre-keys by kind and id; the `PreKeys` of tripleratchet."""

    def __init__(self, rows: Rows, stored: dict[bytes, bytes]) -> None:
        """`stored`: all rows of the device."""
        self._rows = rows
        self._keys: dict[bytes, dict[int, bytes]] = {kind: {} for kind in _PRIVATE_BYTES}
        self._uses: dict[bytes, None] = {}
        self.uses = 0
        """How many sessions were made from these keys since they were loaded."""
        self.next_id = int.from_bytes(stored.get(NEXT_KEY_ID, b"\x01"), "big")
        self.unpublished: keys_pb2.PreKeyUpload | None = None
        """Signed and last-resort key that are kept and not known to be in the directory."""
        if UNPUBLISHED in stored:
            self.unpublished = keys_pb2.PreKeyUpload.FromString(stored[UNPUBLISHED])
        for name in sorted(stored):
            if name.startswith(KEY):
                kind, key_id = name[4:5], int.from_bytes(name[5:], "big")
                self._keys[kind][key_id] = stored[name]
            elif name.startswith(USED):
                self._uses[name[len(USED) :]] = None

    def signed_is_old(self, now_ms: int) -> bool:
        """Whether the signed and last-resort keys are to be replaced. A time in the future says
        that the clock went back: nobody knows their age then."""
        if self.unpublished is not None or not self._keys[SIGNED]:
            return self.unpublished is None
        newest = self._keys[SIGNED][max(self._keys[SIGNED])]
        return not 0 <= now_ms - _time(newest) < ROTATE_MS

    def keep(self, keys: NewKeys, now_ms: int) -> None:
        """Put new keys into rows; signed ones wait there for `published`."""
        if keys.signed is not None:
            self._put(SIGNED, keys.signed.id, keys.signed, keys.signed.signature, now_ms)
        if keys.last_resort is not None:
            key = keys.last_resort
            self._put(LAST_RESORT, key.id, key, key.signature, now_ms)
        for one_time in keys.one_time:
            self._put(ONE_TIME, one_time.id, one_time, b"", now_ms)
        for kyber in keys.one_time_kyber:
            self._put(ONE_TIME_KYBER, kyber.id, kyber, kyber.signature, now_ms)
        highest = max(len(keys.one_time), len(keys.one_time_kyber))
        self.next_id += highest + 1
        self._rows.put(NEXT_KEY_ID, self.next_id.to_bytes(4, "big"))
        for kind in (ONE_TIME, ONE_TIME_KYBER):
            for key_id in sorted(self._keys[kind])[:-MAX_KEPT]:
                self._delete(kind, key_id)
        if keys.signed is not None:
            self.unpublished = keys.to_upload()
            # Never again the one-time keys: they may have been handed out and used by then.
            self.unpublished.ClearField("one_time_pre_keys")
            self.unpublished.ClearField("one_time_kyber_pre_keys")
            self._rows.put(UNPUBLISHED, self.unpublished.SerializeToString())

    def published(self, now_ms: int) -> None:
        """The unpublished keys are in the directory: the grace of those before begins."""
        self.unpublished = None
        self._rows.delete(UNPUBLISHED)
        for kind in (SIGNED, LAST_RESORT):
            newest = max(self._keys[kind])
            row = now_ms.to_bytes(8, "big") + self._keys[kind][newest][8:]
            self._keys[kind][newest] = row
            self._rows.put(_name(kind, newest), row)

    def drop_outlived(self, now_ms: int) -> None:
        """Destroy signed and last-resort keys whose grace is over."""
        if self.unpublished is not None:
            return
        for kind in (SIGNED, LAST_RESORT):
            since_ms = now_ms + 1
            for key_id in sorted(self._keys[kind], reverse=True):
                if since_ms + GRACE_MS <= now_ms:
                    self._delete(kind, key_id)
                else:
                    since_ms = min(since_ms, _time(self._keys[kind][key_id]))

    def signed_pre_key(self, id: int, /) -> SignedPreKey:  # noqa: A002 -- the protocol's word
        """Raises InvalidSignedPreKeyId."""
        row = self._keys[SIGNED].get(id)
        if row is None:
            raise InvalidSignedPreKeyId("no such signed pre-key")
        return SignedPreKey.from_private(id, row[8:40], row[40:])

    def kyber_pre_key(self, id: int, /) -> KyberPreKey:  # noqa: A002
        """Raises InvalidKyberPreKeyId."""
        row = self._keys[ONE_TIME_KYBER].get(id) or self._keys[LAST_RESORT].get(id)
        if row is None:
            raise InvalidKyberPreKeyId("no such Kyber pre-key")
        return KyberPreKey.from_private(id, row[8:72], row[72:])

    def pre_key(self, id: int, /) -> PreKey:  # noqa: A002
        """Raises InvalidPreKeyId."""
        row = self._keys[ONE_TIME].get(id)
        if row is None:
            raise InvalidPreKeyId("no such one-time pre-key")
        return PreKey.from_private(id, row[8:40])

    def used(self, keys: UsedPreKeys) -> None:
        """A session was made from these: one-time keys go, a last-resort use is remembered.

        Raises InvalidMessage for a repeated use of a last-resort key; nothing is changed then.
        """
        if keys.kyber_pre_key_id in self._keys[LAST_RESORT]:
            self._remember_use(keys)
        else:
            self._delete(ONE_TIME_KYBER, keys.kyber_pre_key_id)
        if keys.pre_key_id is not None:
            self._delete(ONE_TIME, keys.pre_key_id)
        self.uses += 1

    def _remember_use(self, keys: UsedPreKeys) -> None:
        ids = keys.kyber_pre_key_id.to_bytes(4, "big") + keys.signed_pre_key_id.to_bytes(4, "big")
        use = hashlib.sha256(ids + keys.base_key).digest()[:16]
        if use in self._uses:
            raise InvalidMessage("a first message was replayed")
        if len(self._uses) >= MAX_REMEMBERED_USES:
            oldest = next(iter(self._uses))
            del self._uses[oldest]
            self._rows.delete(USED + oldest)
        self._uses[use] = None
        self._rows.put(USED + use, b"")

    def _put(self, kind: bytes, key_id: int, key: Key, signature: bytes, now_ms: int) -> None:
        row = now_ms.to_bytes(8, "big") + key.to_private_bytes() + signature
        self._keys[kind][key_id] = row
        self._rows.put(_name(kind, key_id), row)

    def _delete(self, kind: bytes, key_id: int) -> None:
        if self._keys[kind].pop(key_id, None) is not None:
            self._rows.delete(_name(kind, key_id))


def _kyber(key: KyberPreKey) -> keys_pb2.KyberPreKey:
    return keys_pb2.KyberPreKey(key_id=key.id, public_key=key.public, signature=key.signature)


def _name(kind: bytes, key_id: int) -> bytes:
    return KEY + kind + key_id.to_bytes(4, "big")


def _time(row: bytes) -> int:
    return int.from_bytes(row[:8], "big")
