"""Whom a business number talks to: safety numbers, and the confirmation of changed identity keys.

    confirm: check the number ──▶ release what is held, by pages ──▶ confirm ──▶ what came between
                 └── mismatch             └── the key changed again ──┴── mismatch

New messages are refused until the confirmation is committed, so none overtakes a held one. Every
step names the key that was checked. A crash or a caller who leaves in the middle does no harm: the
rest is still held, and the same call goes on from there. Sees no key of its own: workers do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from letterlockd.errors import (
    BrokenInvariant,
    Forbidden,
    InvalidField,
    LetterlockError,
    NotFound,
)
from letterlockd.gateway.contacts import Contacts
from letterlockd.gateway.draft import Draft, Work
from letterlockd.gateway.held import Held, HeldRow, ReleaseWork, mismatch
from letterlockd.gateway.numbers import Number, NumberBook
from letterlockd.gateway.outbox import Outbox
from letterlockd.model.ids import ConversationId, Pseudonym, conversation_id
from letterlockd.model.sender import Sender
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.sealing.errors import KeyDestroyed
from letterlockd.sealing.keyring import Keyring

__all__ = ["UserIdentities"]

_PAGE = 64
"""Held messages in memory at a time, for each call."""


_MAX_CHECKS = 1
"""A check takes a worker some 10 ms, as long as hundreds of messages: one at a time, so that nobody
can fill the lanes with them. Who waits is bounded by the calls that the server lets in."""


class UserIdentities:
    """Users' identity keys, for all business numbers. `put`: queues a work in its lane."""

    def __init__(
        self,
        *,
        numbers: NumberBook,
        contacts: Contacts,
        keyring: Keyring,
        held: Held,
        outbox: Outbox,
        put: Callable[[Work], None],
    ) -> None:
        self._numbers = numbers
        self._contacts = contacts
        self._keyring = keyring
        self._held = held
        self._outbox = outbox
        self._put = put
        self._checking = asyncio.Semaphore(_MAX_CHECKS)

    async def find(self, sender: Sender, phone_number: str) -> Pseudonym:
        """The user who has this number. Raises `NotFound`, also when no message with the number is
        kept any more."""
        found = await self._contacts.find(await self._number(sender), [phone_number])
        if phone_number not in found:
            raise _unknown_user()
        return found[phone_number].pseudonym

    async def safety_number(self, sender: Sender, user: Pseudonym) -> jobs.IdentityChecked:
        """The safety number with a user. Raises `NotFound`."""
        number = await self._number(sender)
        conversation = conversation_id(number.account, user)
        return await self._check(number, conversation, jobs.CheckIdentity())

    async def confirm(self, sender: Sender, user: Pseudonym, checked: jobs.CheckIdentity) -> int:
        """Let messages to a user go on; how many were held and left. Raises `NotFound`, `Conflict`
        (SAFETY_NUMBER_MISMATCH), `InvalidField`."""
        number = await self._number(sender)
        conversation = conversation_id(number.account, user)
        identity_key = (await self._check(number, conversation, checked)).identity_key
        released = await self._release(number, conversation, identity_key)
        confirm = jobs.ConfirmIdentity(identity_key=identity_key)
        await self._ask(number, conversation, jobs.Step(confirm_identity=confirm))
        return released + await self._release(number, conversation, identity_key)

    async def _check(
        self, number: Number, conversation: ConversationId, checked: jobs.CheckIdentity
    ) -> jobs.IdentityChecked:
        step = jobs.Step(check_identity=checked)
        async with self._checking:
            return (await self._ask(number, conversation, step)).identity_checked

    async def _release(
        self, number: Number, conversation: ConversationId, identity_key: bytes
    ) -> int:
        """Every row that is held now, once."""
        released, after = 0, b""
        while rows := await self._held.page(conversation, after=after, limit=_PAGE):
            works = [
                ReleaseWork(
                    number, row, day_key, identity_key, held=self._held, outbox=self._outbox
                )
                for row, day_key in await self._with_keys(number, rows)
                if self._held.claim(row[0])
            ]
            for work in works:
                self._put(work)
            outcomes = await asyncio.gather(*(work.done for work in works), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
                released += outcome
            after = rows[-1][0]
        return released

    async def _with_keys(
        self, number: Number, rows: Sequence[HeldRow]
    ) -> list[tuple[HeldRow, bytes]]:
        """Without those whose day key is destroyed: they have expired, and that is told."""
        found = []
        for row in rows:
            try:
                day_key = await self._keyring.day_key(number.account, row[1].expire_ms)
            except KeyDestroyed:
                continue
            found.append((row, day_key.key))
        return found

    async def _ask(
        self, number: Number, conversation: ConversationId, step: jobs.Step
    ) -> jobs.StepResult:
        work = _IdentityWork(number, conversation, step)
        self._put(work)
        return await work.done

    async def _number(self, sender: Sender) -> Number:
        number = await self._numbers.get(sender.account_id)
        if number is None:
            raise Forbidden("the business number was removed")
        return number


class _IdentityWork(Work):
    """One step about an identity key. `done`: its result, once what it changed is durable."""

    flow = "identity"

    __slots__ = ("_result", "_step", "done")

    def __init__(self, number: Number, conversation: ConversationId, step: jobs.Step) -> None:
        super().__init__(number, conversation, None, 0, b"")
        self._step = step
        self._result = jobs.StepResult()
        self.done: asyncio.Future[jobs.StepResult] = asyncio.get_running_loop().create_future()

    def plan(self, task: jobs.ConversationTask, known: bool) -> int:
        """The step, for a user who is known."""
        if not known:
            self.failed(_unknown_user())
            return 0
        task.steps.add().CopyFrom(self._step)
        return 1

    def settle(self, results: Sequence[jobs.StepResult], draft: Draft) -> None:
        """Keep the result."""
        self._result = results[0]

    def committed(self) -> None:
        """Tell it."""
        if self._result.HasField("failure"):
            self.failed(_error_of(self._result.failure.name))
        elif not self.done.done():  # the caller may have left
            self.done.set_result(self._result)

    def failed(self, error: LetterlockError) -> bool:
        """The caller may try again."""
        if not self.done.done():
            self.done.set_exception(error)
        return False


def _error_of(name: str) -> LetterlockError:
    if name == "UnknownIdentity":
        return _unknown_user()
    if name == "SafetyNumberMismatch":
        return mismatch()
    if name in ("FingerprintParsingError", "FingerprintVersionMismatch"):
        return InvalidField("scanned", "the scannable form of a safety number, version 2")
    return BrokenInvariant("a conversation's row cannot be used")


def _unknown_user() -> NotFound:
    return NotFound("the business number has no conversation with this user")
