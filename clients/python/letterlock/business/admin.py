"""The client of an operator: businesses, their numbers and their tokens.

Knows no message. Only calls that are safe to repeat are repeated by themselves.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import grpc.aio

from letterlock.channel import bearer, open_channel
from letterlock.errors import InvalidRequest
from letterlock.reconnect import Sleep, repeat
from letterlock.retry import Backoff, RetryPolicy
from letterlock.v1 import businesses_pb2, businesses_pb2_grpc

_Answer = TypeVar("_Answer")

READ_ATTEMPTS = 5
PAGE_SIZE = 100


class AdminClient:
    """The registry of a gateway. Use it with `async with`.

    `token` is the operator's; a business token reaches `business()` for its own. Every method
    raises LetterlockError; `deadline` is in seconds, per call.
    """

    def __init__(
        self,
        target: str,
        token: str,
        *,
        ca: str | os.PathLike[str] | None = None,
        insecure: bool = False,
        channel: grpc.aio.Channel | None = None,
        deadline: float = 10.0,
        retry: RetryPolicy | None = None,
        jitter: Callable[[], float] = random.random,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._target, self._ca, self._insecure = target, ca, insecure
        self._given_channel = channel
        self._channel = channel
        self._metadata = bearer(token)
        self._deadline = deadline
        self._retry = retry or RetryPolicy()
        self._jitter = jitter
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        if self._channel is None:
            self._channel = open_channel(self._target, ca=self._ca, insecure=self._insecure)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connection."""
        if self._channel is not None and self._given_channel is None:
            await self._channel.close()
            self._channel = None

    async def create_business(
        self,
        display_name: str,
        *,
        retention: float | None = None,
        hold_identity_changes: bool = False,
    ) -> businesses_pb2.Business:
        """Make a business; `retention` in seconds (not set: 30 days). With `hold_identity_changes`
        nothing is encrypted to a user's changed identity key before it is confirmed. Never tried
        twice: a second try could make a second business."""
        request = businesses_pb2.CreateBusinessRequest(
            display_name=display_name, identity_policy=_policy(hold_identity_changes)
        )
        if retention is not None:
            request.retention.FromNanoseconds(round(retention * 1e9))
        call = self._stub.CreateBusiness
        return await self._once(
            lambda: call(request, timeout=self._deadline, metadata=self._metadata)
        )

    async def update_business(
        self,
        business_id: str,
        *,
        display_name: str | None = None,
        hold_identity_changes: bool | None = None,
        retention: float | None = None,
    ) -> businesses_pb2.Business:
        """Change what is given, at once and without a restart; `retention` in seconds, for messages
        from now on. Raises NotFound, and Unavailable for a retention while the relay is away."""
        request = businesses_pb2.UpdateBusinessRequest(
            business_id=business_id, display_name=display_name
        )
        if hold_identity_changes is not None:
            request.identity_policy = _policy(hold_identity_changes)
        if retention is not None:
            request.retention.FromNanoseconds(round(retention * 1e9))
        call = self._stub.UpdateBusiness
        return await self._repeated(
            lambda: call(request, timeout=self._deadline, metadata=self._metadata)
        )

    async def business(self, business_id: str) -> businesses_pb2.Business:
        """One business. Raises NotFound."""
        request = businesses_pb2.GetBusinessRequest(business_id=business_id)
        call = self._stub.GetBusiness
        return await self._repeated(
            lambda: call(request, timeout=self._deadline, metadata=self._metadata)
        )

    async def businesses(self) -> AsyncIterator[businesses_pb2.Business]:
        """All businesses, by id; pages are fetched as they are needed."""
        request = businesses_pb2.ListBusinessesRequest(page_size=PAGE_SIZE)
        call = self._stub.ListBusinesses
        while True:
            page = await self._repeated(
                lambda: call(request, timeout=self._deadline, metadata=self._metadata)
            )
            for business in page.businesses:
                yield business
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def add_number(self, business_id: str, phone_number: str) -> businesses_pb2.Business:
        """Give a business a number; adding it again changes nothing. Raises AlreadyExists when
        it is another's."""
        request = businesses_pb2.AddNumberRequest(
            business_id=business_id, phone_number=phone_number
        )
        call = self._stub.AddNumber
        return await self._repeated(
            lambda: call(request, timeout=self._deadline, metadata=self._metadata)
        )

    async def remove_number(self, business_id: str, phone_number: str) -> businesses_pb2.Business:
        """Take a number away with all that belongs to it, for good; it can be added again as a new
        one. Raises NotFound, also when it is gone already. When it fails for now, the gateway goes
        on by itself."""
        request = businesses_pb2.RemoveNumberRequest(
            business_id=business_id, phone_number=phone_number
        )
        call = self._stub.RemoveNumber
        return await self._repeated(
            lambda: call(request, timeout=self._deadline, metadata=self._metadata)
        )

    async def delete_business(self, business_id: str) -> None:
        """Remove a business with its tokens and numbers. As remove_number()."""
        request = businesses_pb2.DeleteBusinessRequest(business_id=business_id)
        call = self._stub.DeleteBusiness
        await self._repeated(lambda: call(request, timeout=self._deadline, metadata=self._metadata))

    async def audit(self) -> AsyncIterator[businesses_pb2.AuditEntry]:
        """Who changed what in the last year, oldest first; pages are fetched as they are needed."""
        request = businesses_pb2.ListAuditRequest(page_size=PAGE_SIZE)
        call = self._stub.ListAudit
        while True:
            page = await self._repeated(
                lambda: call(request, timeout=self._deadline, metadata=self._metadata)
            )
            for entry in page.entries:
                yield entry
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def issue_token(
        self, business_id: str, *, label: str = ""
    ) -> businesses_pb2.IssueTokenResponse:
        """Issue a token: its secret is shown here and never again. Never tried twice."""
        request = businesses_pb2.IssueTokenRequest(business_id=business_id, label=label)
        call = self._stub.IssueToken
        return await self._once(
            lambda: call(request, timeout=self._deadline, metadata=self._metadata)
        )

    async def revoke_token(self, business_id: str, token_id: str) -> None:
        """Revoke a token; revoking twice succeeds."""
        request = businesses_pb2.RevokeTokenRequest(business_id=business_id, token_id=token_id)
        call = self._stub.RevokeToken
        await self._repeated(lambda: call(request, timeout=self._deadline, metadata=self._metadata))

    @property
    def _stub(self) -> businesses_pb2_grpc.BusinessesAsyncStub:
        if self._channel is None:
            raise InvalidRequest("not connected", field="client", limit="inside async with")
        return businesses_pb2_grpc.BusinessesStub(self._channel)

    async def _repeated(self, attempt: Callable[[], Awaitable[_Answer]]) -> _Answer:
        return await self._try(attempt, READ_ATTEMPTS)

    async def _once(self, attempt: Callable[[], Awaitable[_Answer]]) -> _Answer:
        return await self._try(attempt, 1)

    async def _try(self, attempt: Callable[[], Awaitable[_Answer]], attempts: int) -> _Answer:
        policy = RetryPolicy(self._retry.first, self._retry.most, self._retry.factor, attempts)
        return await repeat(attempt, Backoff(policy, self._jitter), self._sleep)


def _policy(hold: bool) -> businesses_pb2.IdentityPolicy.ValueType:
    if hold:
        return businesses_pb2.IDENTITY_POLICY_HOLD_UNTIL_CONFIRMED
    return businesses_pb2.IDENTITY_POLICY_ACCEPT_AND_TELL
