"""One direction over more than 65,536 messages, where the chunk index starts again at 0.

The official client plays both roles of this in tests/interop.
"""

from __future__ import annotations

import random as random_module

import pytest
import tripleratchet as tr
from tripleratchet.sparse_pq import erasure
from tripleratchet.sparse_pq.resting import restore

from tests.harness.ratchet import Device, pair
from tests.harness.sparse import End, ends, exchange

_WRAP = 65_536
_BEFORE, _AFTER = 66_000, 200


class Kept:
    """A device that keeps its record open, as a worker does for the length of a job."""

    def __init__(self, device: Device, other: Device) -> None:
        self.device, self.other = device, other
        record = device.record(other)
        assert record is not None
        self.record = record

    def encrypt(self, text: bytes) -> tr.CiphertextMessage:
        self.record, message = tr.encrypt(
            self.record,
            local=self.device.local,
            remote=self.other.address,
            plaintext=text,
            now_ms=self.device.now_ms,
            random=self.device.random,
        )
        return message

    def decrypt(self, message: tr.CiphertextMessage) -> bytes:
        opened = tr.decrypt(
            self.record,
            local=self.device.local,
            remote=self.other.address,
            message=message,
            trusted_identity=self.other.local.identity.public,
            pre_keys=self.device.keyring,
            now_ms=self.device.now_ms,
            random=self.device.random,
        )
        self.record = opened.record
        return opened.plaintext


def test_every_message_of_a_run_beyond_the_wrap_arrives() -> None:
    """Those around the wrap out of order; then the conversation goes on into the next epoch."""
    one, other = pair()
    for _ in range(9):
        other.decrypt(one, one.encrypt(other, b"there"))
        one.decrypt(other, other.encrypt(one, b"and back"))
    sender, receiver = Kept(one, other), Kept(other, one)
    choose = random_module.Random(9)
    window: list[tuple[tr.CiphertextMessage, bytes]] = []
    for number in range(_BEFORE):
        text = b"%d" % number
        message = sender.encrypt(text)
        if _WRAP - 150 < number < _WRAP + 150:
            window.append((message, text))
            continue
        choose.shuffle(window)
        for late, its_text in window:
            assert receiver.decrypt(late) == its_text
        if window:
            with pytest.raises(tr.DuplicatedMessage):
                receiver.decrypt(window.pop()[0])
        window.clear()
        assert receiver.decrypt(message) == text
    for number in range(_AFTER):
        text = b"after %d" % number
        assert sender.decrypt(receiver.encrypt(text)) == text
        assert receiver.decrypt(sender.encrypt(text)) == text
    assert _epoch(sender.record) >= 2


def _epoch(record: tr.SessionRecord) -> int:
    current = record.current_session()
    assert current is not None
    return End(current.post_quantum.to_bytes(), random_module.Random()).epoch


def test_a_message_is_put_together_from_chunks_on_both_sides_of_the_wrap() -> None:
    """All before is lost, and of the rest a third; what comes, comes in any order."""
    one, other = ends(3)
    while one.state != "HeaderSent":
        exchange(one, other)
        exchange(other, one)
    assert other.state == "Ct1Sampled"
    choose = random_module.Random(3)
    sending, under_way = restore(one.stored), []
    for number in range(1, _WRAP + 60):
        sending, message, key = sending.send(pytest.fail)
        if number % 20_000 == 0:  # so that no jump is too far
            assert other.receive(message) == key
        if number > _WRAP - 40 and choose.randrange(3):
            under_way.append((message, key))
    one.stored = sending.to_bytes()
    choose.shuffle(under_way)
    for message, key in under_way:
        assert other.receive(message) == key
    assert other.state == "EkReceivedCt1Sampled"
    while min(one.epoch, other.epoch) < 2:
        exchange(other, one)
        exchange(one, other)


@pytest.mark.parametrize("needed", [3, 5, 30, 36])
def test_chunks_made_in_blocks_are_the_sums_and_begin_again_after_the_wrap(needed: int) -> None:
    message = random_module.Random(needed).randbytes(needed * 32)
    encoder = erasure.Encoder(message)
    counters = (*range(needed, 200), 40_000, 65_500, 65_535)
    sums = erasure._interpolated(message, counters)
    for at, counter in enumerate(counters):
        assert encoder.chunk(counter) == sums[at * 32 : at * 32 + 32]
        assert encoder.chunk(counter + _WRAP) == encoder.chunk(counter)
    assert encoder.chunk(_WRAP) == message[:32]
