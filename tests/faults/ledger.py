"""What was promised and what arrived, kept outside of the daemon: a record, without opinion.

Every note gets the next *tick*, so that "answered before that one was submitted" can be said
afterwards. `judge` reads it; nothing else does.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from letterlock.relay.v1 import mailbox_pb2
from tripleratchet import MessageType
from tripleratchet.messages import PreKeySignalMessage, SignalMessage


@dataclass(slots=True)
class Sent:
    """A message of the business, by its idempotency key."""

    to: str
    text: str
    submitted: int
    """Tick of the submission that was accepted in the end: of the last one before the answer."""
    refusals: int = 0
    answered: int | None = None
    message_ids: list[str] = field(default_factory=list)
    """Of every acceptance that was heard under this key."""
    receipt_wanted: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """A message that came to the application of a user."""

    number: str
    message_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Hearing:
    """A message of a user that came to the business."""

    event_id: str
    number: str
    text: str


@dataclass(slots=True)
class Ledger:
    """One round of traffic."""

    sent: dict[str, Sent] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    written: dict[str, list[str]] = field(default_factory=dict)
    """User's number → texts that the relay has taken, in order."""
    hearings: list[Hearing] = field(default_factory=list)
    """In order; an event that was given again counts once."""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """Message id → statuses in the order in which they were told."""
    keys: dict[bytes, set[bytes]] = field(default_factory=dict)
    """Digest of (sender, ratchet key, counter) → digests of the messages seen under it."""
    counts: Counter[str] = field(default_factory=Counter)
    """What may happen, and how often it did: repeats, refusals, reconnects."""
    _tick: int = 0
    _events: set[str] = field(default_factory=set)
    _items: set[tuple[str, bytes]] = field(default_factory=set)

    def next_round(self) -> Ledger:
        """An empty ledger that still knows which keys were used and which events were given."""
        return Ledger(keys=self.keys, _events=self._events, _items=self._items)

    def tick(self) -> int:
        self._tick += 1
        return self._tick

    def submitting(self, key: str, to: str, text: str) -> None:
        """A message is about to be handed to the client, for the first time or again."""
        known = self.sent.get(key)
        if known is None:
            self.sent[key] = Sent(to, text, self.tick())
        elif known.answered is None:
            known.submitted = self.tick()
        else:
            self.counts["sent again under a used key"] += 1

    def accepted(self, key: str, message_id: str) -> None:
        sent = self.sent[key]
        sent.message_ids.append(message_id)
        if sent.answered is None:
            sent.answered = self.tick()

    def refused(self, key: str, reason: str) -> None:
        self.sent[key].refusals += 1
        self.counts[f"refused: {reason}"] += 1

    def read(self, number: str, message_id: str, text: str) -> None:
        self.readings.append(Reading(number, message_id, text))

    def wrote(self, number: str, text: str) -> None:
        self.written.setdefault(number, []).append(text)

    def given(self, event_id: str) -> bool:
        """Whether an event comes for the first time."""
        if event_id in self._events:
            self.counts["events given again"] += 1
            return False
        self._events.add(event_id)
        return True

    def heard(self, event_id: str, number: str, text: str) -> None:
        self.hearings.append(Hearing(event_id, number, text))

    def told(self, message_id: str, status: int) -> None:
        self.statuses.setdefault(message_id, []).append(status)

    def envelope(self, receiver: str, envelope: mailbox_pb2.Envelope) -> None:
        """Something encrypted reached a device, before anybody tried to open it."""
        sender = envelope.sender_account_id + bytes([envelope.sender_device_id])
        item = (receiver, envelope.message_id)
        self.counts["envelopes delivered again"] += item in self._items
        self._items.add(item)
        self._key_used(sender, envelope.type, envelope.body)

    def submission(self, sender: str, submission: mailbox_pb2.Submission) -> None:
        """Something encrypted is leaving a device."""
        for envelope in submission.envelopes:
            self._key_used(sender.encode(), envelope.type, envelope.body)

    def _key_used(self, sender: bytes, kind: int, body: bytes) -> None:
        if kind not in {MessageType.SIGNAL, MessageType.PRE_KEY}:
            return  # a report of what could not be decrypted: not encrypted itself
        if kind == MessageType.PRE_KEY:
            message = PreKeySignalMessage.parse(body).message
        else:
            message = SignalMessage.parse(body)
        counter = message.counter.to_bytes(4, "big")
        key = hashlib.sha256(sender + message.ratchet_key + counter).digest()
        self.keys.setdefault(key, set()).add(hashlib.sha256(message.authenticated).digest())
