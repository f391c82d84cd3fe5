"""Every answer that a relay may give to a submission, and what becomes of the message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from letterlock.relay.v1 import mailbox_pb2
from letterlock.v1 import errors_pb2
from letterlock.v1 import messaging_pb2 as api
from letterlockd.gateway.room import Gateway
from letterlockd.store.memory import MemoryStore
from letterlockd.uplink import Answered

from tests.harness.clock import until
from tests.harness.gateway import World, message, reading

USER = "+4915112345678"
Reason = errors_pb2.ErrorReason.ValueType


class Refusing:
    """Turns the relay's answers into refusals, so many times."""

    def __init__(self, gateway: Gateway, reason: Reason, times: int, **lists: list[int]) -> None:
        self._reason = reason
        self.left = times
        self._lists = lists
        self._answered = gateway.sending.answered
        gateway.sending.answered = self.answered  # type: ignore[method-assign]

    def answered(self, answers: Sequence[Answered[int]]) -> None:
        self._answered([self._turned(answer) for answer in answers])

    def _turned(self, answer: Answered[int]) -> Answered[int]:
        if self.left == 0:
            return answer
        self.left -= 1
        refused = errors_pb2.Refusal(reason=self._reason)
        refused.retry_after.FromMilliseconds(1)
        result = mailbox_pb2.SubmissionResult(
            message_id=answer.result.message_id, refused=refused, **self._lists
        )
        return Answered(answer.tag, result)


@pytest.mark.parametrize(
    "reason",
    [
        errors_pb2.ERROR_REASON_RATE_LIMITED,
        errors_pb2.ERROR_REASON_STORAGE_FULL,
        errors_pb2.ERROR_REASON_DRAINING,
    ],
)
async def test_a_busy_relay_is_asked_again(world: World, reason: Reason) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        refusing = Refusing(gateway, reason, 3)
        (result,) = await business.send(message("k", to=USER))
        assert await reader.texts(1) == ["hello"]
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
        await until(lambda: gateway.outbox.count == 0)
        assert refusing.left == 0


async def test_nothing_overtakes_a_message_that_a_full_relay_refused(world: World) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await business.send(message("0", to=USER, text="0"))
        await reader.texts(1)
        refused: list[Reason] = []
        answered = gateway.sending.answered

        def watched(answers: Sequence[Answered[int]]) -> None:
            answered(answers)
            refused.extend(answer.result.refused.reason for answer in answers)

        gateway.sending.answered = watched  # type: ignore[method-assign]
        store = cast("MemoryStore", world.relay.store)
        store.full = True
        await business.send(message("1", to=USER, text="1"))
        await until(lambda: bool(refused))
        store.full = False
        await business.send(*(message(text, to=USER, text=text) for text in "23"))
        assert await reader.texts(4) == ["0", "1", "2", "3"]
        assert refused[0] == errors_pb2.ERROR_REASON_STORAGE_FULL


@pytest.mark.parametrize(
    ("reason", "status", "retryable"),
    [
        (errors_pb2.ERROR_REASON_MAILBOX_FULL, api.MESSAGE_STATUS_FAILED, True),
        (errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT, api.MESSAGE_STATUS_FAILED, False),
        (errors_pb2.ERROR_REASON_FORBIDDEN, api.MESSAGE_STATUS_FAILED, False),
        (errors_pb2.ERROR_REASON_EXPIRED, api.MESSAGE_STATUS_EXPIRED, True),
    ],
)
async def test_a_refused_message_fails_with_its_hop(
    world: World, reason: Reason, status: api.MessageStatus.ValueType, retryable: bool
) -> None:
    await world.device(USER)
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        Refusing(gateway, reason, 1)
        (result,) = await business.send(message("k", to=USER))
        failure = (await business.status(result.accepted.message_id, status)).status.failure
        assert (failure.hop, failure.reason) == (api.HOP_RELAY, reason)
        assert failure.retryable == retryable
        assert gateway.outbox.count == 0


async def test_repairs_of_one_message_are_bounded(world: World) -> None:
    await world.device(USER)
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        Refusing(gateway, errors_pb2.ERROR_REASON_DEVICES_CHANGED, 100, stale_device_ids=[1])
        (result,) = await business.send(message("k", to=USER))
        event = await business.status(result.accepted.message_id, api.MESSAGE_STATUS_FAILED)
        assert event.status.failure.reason == errors_pb2.ERROR_REASON_DEVICES_CHANGED
        assert event.status.failure.retryable
        assert gateway.counters.repairs == 5


async def test_messages_that_wait_for_one_repair_share_it(world: World) -> None:
    async with world.gateway() as gateway, reading(await world.device(USER)) as (reader,):
        business = await world.business(gateway)
        await business.send(message("first", to=USER, text="first"))
        await reader.texts(1)
        Refusing(gateway, errors_pb2.ERROR_REASON_DEVICES_CHANGED, 20, stale_device_ids=[1])
        texts = [f"{n}" for n in range(20)]
        results = await business.send(*(message(text, to=USER, text=text) for text in texts))
        for result in results:
            await business.status(result.accepted.message_id, api.MESSAGE_STATUS_DELIVERED)
        await until(lambda: gateway.outbox.count == 0)
        # The relay had taken each of them before the answers were turned, and knows their ids.
        assert await reader.texts(21) == ["first", *texts]
        assert gateway.counters.repairs <= 3


async def test_a_recipient_who_is_gone_fails_the_message(world: World) -> None:
    device = await world.device(USER)
    async with world.gateway() as gateway:
        business = await world.business(gateway)
        (result,) = await business.send(message("k1", to=USER))
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_SENT)
        user_id = result.accepted.user_id
        await device.delete_account()
        await business.status(result.accepted.message_id, api.MESSAGE_STATUS_FAILED)
        (result,) = await business.send(message("k2", user=user_id))
        event = await business.status(result.accepted.message_id, api.MESSAGE_STATUS_FAILED)
        assert event.status.failure.reason == errors_pb2.ERROR_REASON_UNKNOWN_RECIPIENT
