"""Random histories of a conversation with one or two devices: batches, loss, repeats, reordering,
re-established sessions and lost workers. A history without network: what holds after each move is
checked in the move.
"""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from letterlock.relay.v1 import mailbox_pb2
from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.sealed import ContentSeal

from tests.harness.conversations import Number, Talk, User, encrypt_step, envelopes, text_payload

IN_CIPHERTEXT = 160
"""Offset of a byte that is part of the ratchet's ciphertext in messages of both types."""

Devices = st.sampled_from([1, 2])


class Outbound(NamedTuple):
    """An envelope for a device, its payload, and how much had been received when it was made."""

    envelope: mailbox_pb2.DeviceEnvelope
    payload: bytes
    made: int


class Inbound(NamedTuple):
    """A step for the gateway, and the same."""

    step: jobs_pb2.Step
    payload: bytes
    made: int


class Histories(RuleBasedStateMachine):
    """Outbound envelopes and inbound steps under way, with the payload that each must give."""

    @initialize(first=Devices)
    def meet(self, first: int) -> None:
        self.talk = Talk(Number.create(one_time=3), User.create((1, 2)))
        self.sent = 0
        self.received = 0
        self.outbound: list[Outbound] = []
        self.inbound: list[Inbound] = []
        self.opened: list[Inbound] = []
        self.bodies: set[bytes] = set()
        if first == 1:
            self.talk.work(self.talk.user.establish())
        else:
            self.talk.start_from(1)
            self.user_sends(1)
            self.gateway_receives(0)

    def payload(self) -> bytes:
        self.sent += 1
        return text_payload(str(self.sent))

    def time_passes(self) -> None:
        """Lose what is too late: a ratchet forgets a chain when the fifth newer one begins."""
        self.received += 1
        oldest = self.received - 4
        self.outbound = [sent for sent in self.outbound if sent.made >= oldest]
        self.inbound = [sent for sent in self.inbound if sent.made >= oldest]
        self.opened = [sent for sent in self.opened if sent.made >= oldest]

    @rule(count=st.integers(1, 4), committed=st.booleans())
    def gateway_sends(self, count: int, committed: bool) -> None:
        """A batch; one whose worker died is made again from the same state."""
        payloads = [self.payload() for _ in range(count)]
        steps = [encrypt_step(payload) for payload in payloads]
        if not committed:
            self.talk.run(jobs_pb2.Job(tasks=[self.talk.task(*steps)]))
        for payload, result in zip(payloads, self.talk.work(*steps), strict=True):
            for envelope in envelopes(result):
                assert envelope.body not in self.bodies
                self.bodies.add(envelope.body)
                self.outbound.append(Outbound(envelope, payload, self.received))

    @precondition(lambda self: self.outbound)
    @rule(data=st.data())
    def device_receives(self, data: st.DataObject) -> None:
        """In any order; what is never picked is lost."""
        place = data.draw(st.integers(0, len(self.outbound) - 1))
        sent = self.outbound.pop(place)
        assert self.talk.receive(sent.envelope) == sent.payload
        self.time_passes()

    @rule(device=Devices)
    def user_sends(self, device: int) -> None:
        if self.talk.number.address not in self.talk.user.devices[device].records:
            self.talk.start_from(device, self.talk.number.bundle(None))
        payload = self.payload()
        step = self.talk.envelope(device, payload)
        self.inbound.append(Inbound(step, payload, self.received))

    @precondition(lambda self: self.inbound)
    @rule(place=st.integers(0, 20))
    def gateway_receives(self, place: int) -> None:
        sent = self.inbound.pop(place % len(self.inbound))
        told = self.talk.step(sent.step).decrypted
        context = sent.step.decrypt.content_context
        opened = ContentSeal(self.talk.number.day_key).open(told.sealed_payload, context)
        assert opened == sent.payload
        self.opened.append(sent)
        self.time_passes()

    @precondition(lambda self: self.opened)
    @rule(place=st.integers(0, 20))
    def gateway_receives_again(self, place: int) -> None:
        """The relay repeats: refused, and nothing changes."""
        before = self.talk.sealed_record
        result = self.talk.step(self.opened[place % len(self.opened)].step)
        assert result.failure.name == "DuplicatedMessage"
        assert self.talk.sealed_record == before

    @precondition(lambda self: self.inbound)
    @rule(place=st.integers(0, 20))
    def gateway_receives_damage(self, place: int) -> None:
        """A damaged copy is refused; the good one still opens later."""
        good = self.inbound[place % len(self.inbound)].step
        damaged = jobs_pb2.Step()
        damaged.CopyFrom(good)
        body = bytearray(good.decrypt.body)
        body[IN_CIPHERTEXT] ^= 1
        damaged.decrypt.body = bytes(body)
        before = self.talk.sealed_record
        assert self.talk.step(damaged).HasField("failure")
        assert self.talk.sealed_record == before

    @rule(device=Devices)
    def gateway_starts_again(self, device: int) -> None:
        """A session is replaced while messages of the old one are under way."""
        (result,) = self.talk.work(self.talk.user.establish([device]))
        assert result.HasField("established")


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
