"""The `letterlock.v1.Receiving` servicer: dead letters, replay, and how events are kept.

Thin: checks fields, finds out for which number the caller may act, and translates; what is done is
the gateway's (`dead_letters`, `reception`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from letterlock.v1 import messaging_pb2, receiving_pb2, receiving_pb2_grpc

from letterlockd.errors import InvalidField, NotFound
from letterlockd.gateway.dead_letters import DeadLetter
from letterlockd.gateway.handover import Handover
from letterlockd.gateway.inbox import item_of
from letterlockd.gateway.inbox_rows import parse_event_id
from letterlockd.gateway.reception import Policy, Receptions
from letterlockd.limits import (
    DEFAULT_ATTEMPTS,
    LAST_SECOND,
    MAX_ATTEMPTS,
    MAX_KEEP_ACKNOWLEDGED_MS,
    MAX_PAGE,
)
from letterlockd.model.ids import AccountId
from letterlockd.rpc.business_caller import Senders, calling_sender
from letterlockd.rpc.validate import check_page_size, milliseconds_of
from letterlockd.streams.held import Place

__all__ = ["ReceivingServicer"]

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ReceivingServicer(receiving_pb2_grpc.ReceivingServicer):
    """One for each gateway process."""

    def __init__(self, senders: Senders, receptions: Receptions, handover: Handover) -> None:
        self._senders = senders
        self._receptions = receptions
        self._handover = handover

    async def ListDeadLetters(  # noqa: N802, D102 - see the .proto file, here and below
        self, request: receiving_pb2.ListDeadLettersRequest, _: _Context
    ) -> receiving_pb2.ListDeadLettersResponse:
        limit = check_page_size(request.page_size)
        account = await self._account(request.business_number)
        letters, rest = await self._receptions.dead_letters.list(
            account, after=request.page_token, limit=limit
        )
        answer = receiving_pb2.ListDeadLettersResponse(next_page_token=rest)
        for letter in letters:
            _fill(answer.dead_letters.add(), letter)
        return answer

    async def GetDeadLetter(  # noqa: N802, D102
        self, request: receiving_pb2.GetDeadLetterRequest, _: _Context
    ) -> receiving_pb2.DeadLetter:
        account = await self._account(request.business_number)
        letter = await self._receptions.dead_letters.get(account, request.event_id)
        answer = receiving_pb2.DeadLetter()
        _fill(answer, letter)
        answer.event.CopyFrom(await self._opened(account, letter))
        return answer

    async def ReplayDeadLetters(  # noqa: N802, D102
        self, request: receiving_pb2.ReplayDeadLettersRequest, _: _Context
    ) -> receiving_pb2.ReplayDeadLettersResponse:
        ids = _check_ids(request.event_ids)
        account = await self._account(request.business_number)
        replayed = await self._receptions.replay_dead_letters(account, ids)
        return receiving_pb2.ReplayDeadLettersResponse(replayed=replayed)

    async def DropDeadLetters(  # noqa: N802, D102
        self, request: receiving_pb2.DropDeadLettersRequest, _: _Context
    ) -> receiving_pb2.DropDeadLettersResponse:
        ids = _check_ids(request.event_ids)
        account = await self._account(request.business_number)
        dropped = await self._receptions.dead_letters.drop(account, ids)
        return receiving_pb2.DropDeadLettersResponse(dropped=dropped)

    async def ReplayEvents(  # noqa: N802, D102
        self, request: receiving_pb2.ReplayEventsRequest, _: _Context
    ) -> receiving_pb2.ReplayEventsResponse:
        start, from_ms = _check_start(request)
        account = await self._account(request.business_number)
        replayed, rest = await self._receptions.replay_events(account, start, from_ms)
        cursor = f"{rest:x}" if rest else ""
        return receiving_pb2.ReplayEventsResponse(replayed=replayed, next_cursor=cursor)

    async def GetReceivePolicy(  # noqa: N802, D102
        self, request: receiving_pb2.GetReceivePolicyRequest, _: _Context
    ) -> receiving_pb2.ReceivePolicy:
        account = await self._account(request.business_number)
        return _policy((await self._receptions.of(account)).policy)

    async def SetReceivePolicy(  # noqa: N802, D102
        self, request: receiving_pb2.SetReceivePolicyRequest, _: _Context
    ) -> receiving_pb2.ReceivePolicy:
        policy = _check_policy(request.policy)
        account = await self._account(request.business_number)
        await self._receptions.set_policy(account, policy)
        return _policy(policy)

    async def _account(self, business_number: str) -> AccountId:
        return (await calling_sender(self._senders, business_number)).account_id

    async def _opened(self, account: AccountId, letter: DeadLetter) -> messaging_pb2.Event:
        stored = letter.record.event
        stored.event_id = letter.event_id
        item = item_of(Place(0, 0, 1), stored, 0)
        item.failures = letter.record.attempts - 1  # the attempt shown is the last one
        frame = messaging_pb2.Events()
        if (await self._handover.open(account, [item], frame)).gone:
            raise NotFound("there is no dead letter of this event")  # its day key is destroyed
        return frame.events[0]


def _check_ids(event_ids: Sequence[str]) -> Sequence[str]:
    if not 1 <= len(event_ids) <= MAX_PAGE:
        raise InvalidField("event_ids", f"must be 1 to {MAX_PAGE} ids")
    return event_ids


def _check_start(request: receiving_pb2.ReplayEventsRequest) -> tuple[int, int]:
    """From which row on, and recorded when at the earliest, in milliseconds."""
    start, from_ms = 0, 0
    beginning = request.WhichOneof("from")
    if beginning == "from_time":
        from_ms = _check_time(request.from_time)
    elif beginning == "from_event_id":
        start, _ = parse_event_id(request.from_event_id, "from_event_id")
    else:
        raise InvalidField("from", "from_time or from_event_id is required")
    if request.cursor:
        try:
            start, _ = parse_event_id(f"{request.cursor}.0", "cursor")
        except InvalidField:
            raise InvalidField("cursor", "must be the one of the response before") from None
    return start, from_ms


def _check_time(time: Timestamp) -> int:
    if not (0 <= time.seconds <= LAST_SECOND and 0 <= time.nanos < 1_000_000_000):
        raise InvalidField("from_time", "must be a time from 1970 to 9999")
    return time.seconds * 1_000 + time.nanos // 1_000_000


def _check_policy(policy: receiving_pb2.ReceivePolicy) -> Policy:
    if policy.max_attempts > MAX_ATTEMPTS:
        raise InvalidField("policy.max_attempts", f"must be 1 to {MAX_ATTEMPTS}")
    keep_ms = milliseconds_of(policy.keep_acknowledged)
    if keep_ms is None or keep_ms > MAX_KEEP_ACKNOWLEDGED_MS:
        days = MAX_KEEP_ACKNOWLEDGED_MS // 86_400_000
        raise InvalidField("policy.keep_acknowledged", f"must be 0 to {days} days")
    return Policy(policy.max_attempts or DEFAULT_ATTEMPTS, keep_ms)


def _policy(policy: Policy) -> receiving_pb2.ReceivePolicy:
    told = receiving_pb2.ReceivePolicy(max_attempts=policy.max_attempts)
    told.keep_acknowledged.FromMilliseconds(policy.keep_ms)
    return told


def _fill(told: receiving_pb2.DeadLetter, letter: DeadLetter) -> None:
    record = letter.record
    told.event_id = letter.event_id
    told.user_id = record.event.pseudonym.hex()
    kind = record.event.WhichOneof("kind")
    told.kind = "message" if kind == "inbound" else kind or ""
    told.event_time.FromMilliseconds(record.event.time_ms)
    told.dead_time.FromMilliseconds(record.dead_ms)
    told.expire_time.FromMilliseconds(letter.expires_at_ms)
    told.attempts = record.attempts
    told.last_failure = record.last_failure
