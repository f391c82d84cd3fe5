"""What a business does about its events beside the stream: dead letters, replay, policy.

Every call is safe to repeat, and is repeated. Knows no stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from letterlock.calls import Calls
from letterlock.durations import set_seconds
from letterlock.errors import InvalidRequest
from letterlock.v1 import receiving_pb2, receiving_pb2_grpc

PAGE_SIZE = 100
MAX_ATTEMPTS = 1_000
"""The contract's limit."""


class BusinessInbox:
    """Of one business number. Every method raises LetterlockError."""

    def __init__(
        self,
        stub: receiving_pb2_grpc.ReceivingAsyncStub,
        number: str,
        calls: Calls,
    ) -> None:
        self._stub = stub
        self._number = number
        self._calls = calls

    async def dead_letters(self) -> AsyncIterator[receiving_pb2.DeadLetter]:
        """All dead letters, oldest first, without content; pages are fetched as needed."""
        request = receiving_pb2.ListDeadLettersRequest(
            business_number=self._number, page_size=PAGE_SIZE
        )
        while True:
            page = await self._calls.repeated(self._stub.ListDeadLetters, request)
            for letter in page.dead_letters:
                yield letter
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def dead_letter(self, event_id: str) -> receiving_pb2.DeadLetter:
        """One dead letter with its event and content. Raises NotFound."""
        request = receiving_pb2.GetDeadLetterRequest(
            business_number=self._number, event_id=event_id
        )
        return await self._calls.repeated(self._stub.GetDeadLetter, request)

    async def replay_dead_letters(self, event_ids: Sequence[str]) -> int:
        """Have up to 1,000 dead letters given again, under their ids; returns how many there
        were. After a lost answer the repeat counts only what was left."""
        request = receiving_pb2.ReplayDeadLettersRequest(
            business_number=self._number, event_ids=event_ids
        )
        return (await self._calls.repeated(self._stub.ReplayDeadLetters, request)).replayed

    async def drop_dead_letters(self, event_ids: Sequence[str]) -> int:
        """Delete up to 1,000 dead letters for good; counts as `replay_dead_letters`."""
        request = receiving_pb2.DropDeadLettersRequest(
            business_number=self._number, event_ids=event_ids
        )
        return (await self._calls.repeated(self._stub.DropDeadLetters, request)).dropped

    async def replay(self, *, since: datetime | None = None, event_id: str | None = None) -> int:
        """Have acknowledged events given again, from a time (with a time zone) or an event on, as
        far as the policy has kept them; returns how many."""
        request = receiving_pb2.ReplayEventsRequest(business_number=self._number)
        if since is not None and event_id is None and since.tzinfo is not None:
            request.from_time.FromDatetime(since)
        elif event_id is not None and since is None:
            request.from_event_id = event_id
        else:
            limit = "since, with a time zone, or event_id"
            raise InvalidRequest("from where?", field="from", limit=limit)
        replayed = 0
        while True:
            part = await self._calls.repeated(self._stub.ReplayEvents, request)
            replayed += part.replayed
            if not part.next_cursor:
                return replayed
            request.cursor = part.next_cursor

    async def policy(self) -> receiving_pb2.ReceivePolicy:
        """How the number's events are treated."""
        request = receiving_pb2.GetReceivePolicyRequest(business_number=self._number)
        return await self._calls.repeated(self._stub.GetReceivePolicy, request)

    async def set_policy(
        self, *, max_attempts: int | None = None, keep_acknowledged: float = 0.0
    ) -> receiving_pb2.ReceivePolicy:
        """Set that as a whole: attempts before an event becomes a dead letter (1 to 1,000; not
        given: the gateway's default), and seconds that acknowledged events are kept for `replay`
        (0: not at all). Raises InvalidRequest."""
        if max_attempts is not None and not 1 <= max_attempts <= MAX_ATTEMPTS:
            limit = f"1 to {MAX_ATTEMPTS}"
            raise InvalidRequest("out of range", field="max_attempts", limit=limit)
        policy = receiving_pb2.ReceivePolicy(max_attempts=max_attempts or 0)
        set_seconds(policy.keep_acknowledged, keep_acknowledged, field="keep_acknowledged")
        request = receiving_pb2.SetReceivePolicyRequest(business_number=self._number, policy=policy)
        return await self._calls.repeated(self._stub.SetReceivePolicy, request)
