"""Random histories of two parties against a simple model of what each message must yield.

The model: a message opens exactly once; a second time it is a duplicate; damage never opens, never
changes anything and never raises outside RatchetError.
"""

from __future__ import annotations

import random as random_module
from dataclasses import dataclass, field

import pytest
import tripleratchet as tr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tripleratchet import SessionRecord

from tests.harness.ratchet import Device, pair

_NAMES = ("9d0652a3-dcc3-4d11-975f-74d61598733f", "6838237d-02f6-4098-b110-698253d15961")
_KEPT_TURNS = 5
_SIDES = st.sampled_from((0, 1))


@dataclass
class Sent:
    """A message under way, and how many turns its receiver had made when it was sent."""

    message: tr.CiphertextMessage
    text: bytes
    receiver_turns: int


@dataclass
class Side:
    """One device, what is under way to it, and what it has opened."""

    device: Device
    inbox: list[Sent] = field(default_factory=list)
    opened: list[Sent] = field(default_factory=list)
    turns: int = 0


class Histories(RuleBasedStateMachine):
    """Loss, duplication, reordering, damage, archiving, new and simultaneous sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = [Side(Device.create(name, seed=7)) for name in _NAMES]
        self.sent = 0
        self.bundles = 0

    def _pair(self, to: int) -> tuple[Side, Side]:
        return self.sides[to], self.sides[1 - to]

    @rule(to=_SIDES, one_time=st.booleans())
    def start(self, to: int, *, one_time: bool) -> None:
        receiver, sender = self._pair(to)
        self.bundles += 1
        bundle = receiver.device.bundle(one_time=self.bundles if one_time else None)
        sender.device.start(receiver.device, bundle)

    @rule(to=_SIDES, size=st.integers(0, 40))
    def send(self, to: int, size: int) -> None:
        receiver, sender = self._pair(to)
        record = sender.device.record(receiver.device)
        text = f"{self.sent}".encode().ljust(size)
        if record is None or not record.has_current:
            with pytest.raises(tr.SessionNotFound):
                sender.device.encrypt(receiver.device, text)
            return
        self.sent += 1
        message = sender.device.encrypt(receiver.device, text)
        receiver.inbox.append(Sent(message, text, receiver.turns))

    @precondition(lambda self: any(side.inbox for side in self.sides))
    @rule(to=_SIDES, position=st.integers(0, 5))
    def deliver(self, to: int, position: int) -> None:
        receiver, sender = self._pair(to)
        if not receiver.inbox:
            return
        sent = receiver.inbox.pop(min(position, len(receiver.inbox) - 1))
        try:
            text = receiver.device.decrypt(sender.device, sent.message)
        except tr.InvalidMessage:
            # Only a message whose chain has been pushed out by five newer ones may be lost.
            if receiver.turns - sent.receiver_turns < _KEPT_TURNS:
                raise
            return
        assert text == sent.text
        receiver.opened.append(sent)
        receiver.turns += 1

    @precondition(lambda self: any(side.inbox for side in self.sides))
    @rule(to=_SIDES)
    def lose(self, to: int) -> None:
        if self.sides[to].inbox:
            self.sides[to].inbox.pop(0)

    @rule(to=_SIDES, position=st.integers(0, 30))
    def repeat(self, to: int, position: int) -> None:
        receiver, sender = self._pair(to)
        if not receiver.opened:
            return
        sent = receiver.opened[-1 - position % len(receiver.opened)]
        # A chain no longer kept makes a repeat unreadable instead of a duplicate.
        with pytest.raises((tr.DuplicatedMessage, tr.InvalidMessage)) as caught:
            receiver.device.decrypt(sender.device, sent.message)
        if position % len(receiver.opened) == 0:
            assert caught.type is tr.DuplicatedMessage

    @rule(to=_SIDES, position=st.integers(0, 2000), bit=st.integers(0, 7), cut=st.booleans())
    def damage(self, to: int, position: int, bit: int, *, cut: bool) -> None:
        receiver, sender = self._pair(to)
        if not receiver.inbox:
            return
        body = bytearray(receiver.inbox[0].message.body)
        position %= len(body)
        body[position] ^= 1 << bit
        damaged = bytes(body[:position]) if cut else bytes(body)
        _open_damaged(receiver.device, sender.device, receiver.inbox[0], damaged)

    @rule(to=_SIDES)
    def archive(self, to: int) -> None:
        receiver, sender = self._pair(to)
        sender.device.archive(receiver.device)

    @invariant()
    def records_round_trip(self) -> None:
        for to in (0, 1):
            receiver, sender = self._pair(to)
            stored = receiver.device.records.get(sender.device.address)
            if stored is not None:
                assert SessionRecord.from_bytes(stored).to_bytes() == stored


def _open_damaged(receiver: Device, sender: Device, sent: Sent, damaged: bytes) -> None:
    """A damaged message is refused, or opens to the same text: parts of a pre-key message that
    neither the key agreement nor the MAC covers may change (the registration id, low version bits,
    trailing key bytes). Either way the device is put back as it was."""
    before = receiver.records.get(sender.address)
    keyring = dict(receiver.keyring.ec), set(receiver.keyring.seen)
    try:
        text = receiver.decrypt(sender, tr.CiphertextMessage(sent.message.type, damaged))
    except tr.RatchetError:
        assert receiver.records.get(sender.address) == before
        assert (receiver.keyring.ec, receiver.keyring.seen) == keyring
    else:
        assert sent.message.type == 3
        assert text == sent.text
        receiver.keyring.ec, receiver.keyring.seen = keyring
        receiver.records.pop(sender.address)
        if before is not None:
            receiver.records[sender.address] = before


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from((2, 3)))
def test_arbitrary_bytes_are_refused(body: bytes, type_: int) -> None:
    one, other = _PAIR
    before = other.records[one.address]
    for prefix in (b"", b"\x44", b"\x44\x0a\x21\x05"):
        with pytest.raises(tr.RatchetError):
            other.decrypt(one, tr.CiphertextMessage(type_, prefix + body))
    assert other.records[one.address] == before


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 1200), st.integers(0, 255))
def test_a_damaged_record_is_corrupt_or_reads_as_another(
    tail: bytes, position: int, value: int
) -> None:
    one, other = _PAIR
    stored = bytearray(other.records[one.address])
    stored[position % len(stored)] = value
    for damaged in (bytes(stored), bytes(stored[: position % len(stored)]) + tail):
        try:
            record = SessionRecord.from_bytes(damaged)
        except tr.CorruptRecord:
            continue
        assert record.to_bytes() == damaged


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 59), min_size=60, max_size=60), st.integers(0, 2**32))
def test_any_order_of_one_chain(order: list[int], seed: int) -> None:
    one, other = pair()
    texts = {number: str(number).encode() for number in range(60)}
    messages = [one.encrypt(other, texts[number]) for number in texts]
    random_module.Random(seed).shuffle(messages)
    assert sorted(other.decrypt(one, message) for message in messages) == sorted(texts.values())
    for number in order[:5]:
        with pytest.raises(tr.DuplicatedMessage):
            other.decrypt(one, messages[number])


_PAIR = pair()
