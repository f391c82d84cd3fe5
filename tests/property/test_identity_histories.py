"""Random histories of a user who comes back with other identity keys, against a model of two facts:
which key the gateway knows, and whether the business has yet to confirm it. Nothing is ever
encrypted to a key that is not confirmed.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from letterlock.safety import safety_number_of
from letterlockd.records.v1 import jobs_pb2
from letterlockd.workers.sealed import ConversationSeal

from tests.harness.conversations import Number, Talk, User, encrypt_step, envelopes, text_payload

NUMBER = Number.create(one_time=0)
"""Costs more to make than a whole history, and no step changes it."""


class Holding(Talk):
    """A conversation whose business may hold identity changes."""

    holds = False

    def task(self, *steps: jobs_pb2.Step) -> jobs_pb2.ConversationTask:
        task = super().task(*steps)
        task.hold_identity_changes = self.holds
        return task


class IdentityHistories(RuleBasedStateMachine):
    """`users`: the account with each of its identities so far; the last one is the real user."""

    @initialize(holds=st.booleans())
    def meet(self, holds: bool) -> None:
        self.talk = Holding(NUMBER, User.create((1,)))
        self.talk.holds = holds
        self.users = [self.talk.user]
        self.talk.work(self.talk.user.establish())
        self.known = self.talk.user
        self.unconfirmed = False

    def learn(self, user: User, told: bool) -> None:
        """The gateway has a proof of this user's key."""
        changed = user.identity_key != self.known.identity_key
        assert told is changed
        self.unconfirmed = self.unconfirmed or (changed and self.talk.holds)
        self.known = user

    @rule(holds=st.booleans())
    def set_policy(self, holds: bool) -> None:
        self.talk.holds = holds

    @rule()
    def reinstall(self) -> None:
        self.talk.user = User.create((1,), self.talk.user.account)
        self.users.append(self.talk.user)

    @rule()
    def fetch_bundles(self) -> None:
        (result,) = self.talk.work(self.talk.user.establish())
        self.learn(self.talk.user, result.established.identity_changed)

    @rule()
    def user_writes(self) -> None:
        self.talk.start_from(1, NUMBER.bundle(one_time=None))
        told = self.talk.step(self.talk.envelope(1, text_payload())).decrypted
        self.learn(self.talk.user, told.identity_changed)
        assert told.identity_unconfirmed is self.unconfirmed

    @rule()
    def business_writes(self) -> None:
        self.encrypts(encrypt_step(text_payload()), allowed=not self.unconfirmed)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        checked = data.draw(st.sampled_from(self.users))
        step = encrypt_step(text_payload())
        step.encrypt.confirmed_identity_key = checked.identity_key
        is_known = checked.identity_key == self.known.identity_key
        self.encrypts(step, allowed=is_known or not self.unconfirmed)

    def encrypts(self, step: jobs_pb2.Step, *, allowed: bool) -> None:
        (result,) = self.talk.work(step)
        if not allowed:
            assert result.failure.name == "IdentityUnconfirmed"
        elif self.known is self.talk.user:
            assert self.talk.receive(envelopes(result)[0]) == step.encrypt.payload
        else:
            assert result.HasField("encrypted")

    @rule(data=st.data(), scans=st.booleans())
    def check(self, data: st.DataObject, scans: bool) -> None:
        user = data.draw(st.sampled_from(self.users))
        seen = safety_number_of(
            user.account, user.identity_key, NUMBER.account, NUMBER.identity_key
        )
        brings = {"scanned": seen.scannable} if scans else {"digits": seen.displayable}
        step = jobs_pb2.Step(check_identity=jobs_pb2.CheckIdentity(**brings))
        (result,) = self.talk.work(step)
        if user.identity_key == self.known.identity_key:
            assert result.identity_checked.unconfirmed is self.unconfirmed
        else:
            assert result.failure.name == "SafetyNumberMismatch"

    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        user = data.draw(st.sampled_from(self.users))
        confirm = jobs_pb2.ConfirmIdentity(identity_key=user.identity_key)
        (result,) = self.talk.work(jobs_pb2.Step(confirm_identity=confirm))
        if user.identity_key == self.known.identity_key:
            self.unconfirmed = False
        else:
            assert result.failure.name == "SafetyNumberMismatch"

    @invariant()
    def what_is_stored_says_so(self) -> None:
        record = ConversationSeal(NUMBER.scope_key, self.talk.conversation).open(
            self.talk.sealed_record
        )
        assert record.identity_key == self.known.identity_key
        assert record.identity_unconfirmed is self.unconfirmed


IdentityHistories.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestIdentityHistories = IdentityHistories.TestCase
