"""The client of an operator: businesses, their numbers and their tokens.

Knows no message. Only calls that are safe to repeat are repeated by themselves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from letterlock.business.gateway import GatewayClient
from letterlock.durations import set_seconds
from letterlock.v1 import businesses_pb2, businesses_pb2_grpc

PAGE_SIZE = 100


class AdminClient(GatewayClient):
    """The registry of a gateway. Use it with `async with`.

    `token` is the operator's; a business token reaches `business()` for its own. Every method
    raises LetterlockError; `deadline` is in seconds, per call.
    """

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
            set_seconds(request.retention, retention, field="retention")
        return await self._calls.once(self._stub.CreateBusiness, request)

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
            set_seconds(request.retention, retention, field="retention")
        return await self._calls.repeated(self._stub.UpdateBusiness, request)

    async def business(self, business_id: str) -> businesses_pb2.Business:
        """One business. Raises NotFound."""
        request = businesses_pb2.GetBusinessRequest(business_id=business_id)
        return await self._calls.repeated(self._stub.GetBusiness, request)

    async def businesses(self) -> AsyncIterator[businesses_pb2.Business]:
        """All businesses, by id; pages are fetched as they are needed."""
        request = businesses_pb2.ListBusinessesRequest(page_size=PAGE_SIZE)
        while True:
            page = await self._calls.repeated(self._stub.ListBusinesses, request)
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
        return await self._calls.repeated(self._stub.AddNumber, request)

    async def remove_number(self, business_id: str, phone_number: str) -> businesses_pb2.Business:
        """Take a number away with all that belongs to it, for good; it can be added again as a new
        one. Raises NotFound, also when it is gone already. When it fails for now, the gateway goes
        on by itself."""
        request = businesses_pb2.RemoveNumberRequest(
            business_id=business_id, phone_number=phone_number
        )
        return await self._calls.repeated(self._stub.RemoveNumber, request)

    async def delete_business(self, business_id: str) -> None:
        """Remove a business with its tokens and numbers. As remove_number()."""
        request = businesses_pb2.DeleteBusinessRequest(business_id=business_id)
        await self._calls.repeated(self._stub.DeleteBusiness, request)

    async def audit(self) -> AsyncIterator[businesses_pb2.AuditEntry]:
        """Who changed what in the last year, oldest first; pages are fetched as they are needed."""
        request = businesses_pb2.ListAuditRequest(page_size=PAGE_SIZE)
        while True:
            page = await self._calls.repeated(self._stub.ListAudit, request)
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
        return await self._calls.once(self._stub.IssueToken, request)

    async def revoke_token(self, business_id: str, token_id: str) -> None:
        """Revoke a token; revoking twice succeeds."""
        request = businesses_pb2.RevokeTokenRequest(business_id=business_id, token_id=token_id)
        await self._calls.repeated(self._stub.RevokeToken, request)

    @property
    def _stub(self) -> businesses_pb2_grpc.BusinessesAsyncStub:
        return businesses_pb2_grpc.BusinessesStub(self._connected)


def _policy(hold: bool) -> businesses_pb2.IdentityPolicy.ValueType:
    if hold:
        return businesses_pb2.IDENTITY_POLICY_HOLD_UNTIL_CONFIRMED
    return businesses_pb2.IDENTITY_POLICY_ACCEPT_AND_TELL
