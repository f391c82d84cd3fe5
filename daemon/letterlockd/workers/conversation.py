"""A conversation's ratchet state, opened for the length of one task.

Devices keep their bytes until a step needs them: a message concerns one device of several, and
decoding costs as much as a ratchet step. Steps put in what they have finished, never half of it.
"""

from __future__ import annotations

from collections.abc import Collection

from tripleratchet import SessionRecord

from letterlockd.records.v1 import conversation_pb2

__all__ = ["Conversation"]


class Conversation:
    """Known identity key (33 bytes, None before the first contact) and sessions by device."""

    def __init__(self, record: conversation_pb2.ConversationRecord) -> None:
        self._identity_key = record.identity_key or None
        self._identity_unconfirmed = record.identity_unconfirmed
        self._devices: dict[int, bytes | SessionRecord] = {
            device.device_id: device.record for device in record.devices if device.record
        }
        self._retired: dict[int, bytes] = {
            device.device_id: device.retired for device in record.devices if device.retired
        }
        self._generation = record.generation
        self._unanswered = {
            device.device_id: device.unanswered_since_ms
            for device in record.devices
            if device.unanswered_since_ms
        }
        self.changed = False

    @property
    def identity_key(self) -> bytes | None:
        """The identity key that is known now."""
        return self._identity_key

    @property
    def identity_unconfirmed(self) -> bool:
        """Whether the business has yet to confirm it: nothing may be encrypted until then."""
        return self._identity_unconfirmed

    @property
    def devices(self) -> list[int]:
        """Known devices, ascending."""
        return sorted(self._devices)

    def sessions(self, device: int) -> SessionRecord | None:
        """The sessions with a device. Raises `CorruptRecord`."""
        stored = self._devices.get(device)
        if isinstance(stored, bytes):
            stored = self._devices[device] = SessionRecord.from_bytes(stored)
        return stored

    def enter(self, generation: int) -> None:
        """Retire all sessions if the store was restored since they were last used: other messages
        may have been encrypted with them (I2). They still open what is under way."""
        if self._generation >= generation:
            return
        self._generation = generation
        for device in self.devices:
            sessions = self.sessions(device)
            if sessions is not None:
                self._retired[device] = sessions.archive().to_bytes()
                self.changed = True
        self._devices.clear()

    def retired(self, device: int) -> SessionRecord | None:
        """Sessions with a device that may only receive. Raises `CorruptRecord`."""
        stored = self._retired.get(device)
        return None if stored is None else SessionRecord.from_bytes(stored)

    def put_retired(self, device: int, sessions: SessionRecord) -> None:
        """Retired sessions in their next state."""
        self._retired[device] = sessions.to_bytes()
        self.changed = True

    def drop_retired(self, device: int) -> None:
        """The device has moved to a newer session."""
        if self._retired.pop(device, None) is not None:
            self.changed = True

    def put(self, device: int, sessions: SessionRecord) -> None:
        """Sessions with a device in their next state."""
        self._devices[device] = sessions
        self.changed = True

    def unanswered_since(self, device: int) -> int | None:
        """Milliseconds since 1970: the first message sent since one came from the device, or since
        its session was opened."""
        return self._unanswered.get(device)

    def sent(self, device: int, now_ms: int) -> None:
        """A message was encrypted for a device. A time in the future says that the clock went back,
        and begins again."""
        if self._unanswered.get(device, now_ms + 1) > now_ms:
            self._unanswered[device] = now_ms

    def heard(self, device: int) -> None:
        """A message of a device was decrypted, or a session with it was opened."""
        self._unanswered.pop(device, None)

    def accept_identity(self, identity_key: bytes, *, hold: bool) -> bool:
        """Remember a verified identity key; True if another one was known before.

        Then all sessions are forgotten: they belong to a key that nobody should hold any more. With
        `hold` the new key is to be confirmed.
        """
        known, self._identity_key = self._identity_key, identity_key
        self.changed = True
        if known is None or known == identity_key:
            return False
        self._devices.clear()
        self._retired.clear()
        self._unanswered.clear()
        self._identity_unconfirmed = self._identity_unconfirmed or hold
        return True

    def confirm_identity(self) -> None:
        """The business has confirmed the known identity key."""
        if self._identity_unconfirmed:
            self._identity_unconfirmed = False
            self.changed = True

    def forget(self, devices: Collection[int]) -> None:
        """Drop all sessions with these devices."""
        for device in devices:
            if self._devices.pop(device, None) is not None:
                self._unanswered.pop(device, None)
                self.changed = True
            self.drop_retired(device)

    def to_record(self, account: bytes) -> conversation_pb2.ConversationRecord:
        """The state at rest, for the user's account (16 bytes)."""
        record = conversation_pb2.ConversationRecord(
            user_account_id=account,
            identity_key=self._identity_key or b"",
            identity_unconfirmed=self._identity_unconfirmed,
            generation=self._generation,
        )
        for device in sorted(self._devices.keys() | self._retired.keys()):
            stored = self._devices.get(device, b"")
            data = stored if isinstance(stored, bytes) else stored.to_bytes()
            record.devices.add(
                device_id=device,
                record=data,
                retired=self._retired.get(device),
                unanswered_since_ms=self._unanswered.get(device),
            )
        return record
