"""The `Businesses` service: wire messages to the registry and back.

Decides nothing: who may do what and every limit but the page size is the registry's.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc
from google.protobuf import duration_pb2, timestamp_pb2
from letterlock.v1 import businesses_pb2, businesses_pb2_grpc

from letterlockd.errors import InvalidField
from letterlockd.registry.businesses import (
    DEFAULT_RETENTION_MS,
    Business,
    TokenInfo,
    parse_business_id,
)
from letterlockd.registry.enrolment import NumberRegistrar
from letterlockd.registry.removal import NumberRemover
from letterlockd.registry.room import Registry
from letterlockd.rpc.business_caller import calling_principal
from letterlockd.rpc.validate import check_page_size, milliseconds_of

__all__ = ["BusinessesServicer"]

_HOLDS = {
    businesses_pb2.IDENTITY_POLICY_UNSPECIFIED: None,
    businesses_pb2.IDENTITY_POLICY_ACCEPT_AND_TELL: False,
    businesses_pb2.IDENTITY_POLICY_HOLD_UNTIL_CONFIRMED: True,
}

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class BusinessesServicer(businesses_pb2_grpc.BusinessesServicer):
    """Serves the registry; `registrar` and `remover` are the gateway's, which makes numbers'
    identities and destroys what belongs to them."""

    def __init__(
        self, registry: Registry, registrar: NumberRegistrar, remover: NumberRemover
    ) -> None:
        self._registry = registry
        self._registrar = registrar
        self._remover = remover

    async def CreateBusiness(  # noqa: N802, D102 - see the .proto file, here and below
        self, request: businesses_pb2.CreateBusinessRequest, context: _Context
    ) -> businesses_pb2.Business:
        retention = DEFAULT_RETENTION_MS
        if request.HasField("retention"):
            retention = _milliseconds(request.retention)
        made = await self._registry.create_business(
            calling_principal(),
            request.display_name,
            retention,
            hold_identity_changes=bool(_holds(request.identity_policy)),
        )
        return _business(made)

    async def UpdateBusiness(  # noqa: N802, D102
        self, request: businesses_pb2.UpdateBusinessRequest, context: _Context
    ) -> businesses_pb2.Business:
        retention_ms = None
        if request.HasField("retention"):
            retention_ms = _milliseconds(request.retention)
        changed = await self._registry.update_business(
            calling_principal(),
            parse_business_id(request.business_id),
            self._registrar,
            display_name=request.display_name if request.HasField("display_name") else None,
            hold_identity_changes=_holds(request.identity_policy),
            retention_ms=retention_ms,
        )
        return _business(changed)

    async def GetBusiness(  # noqa: N802, D102
        self, request: businesses_pb2.GetBusinessRequest, context: _Context
    ) -> businesses_pb2.Business:
        business = parse_business_id(request.business_id)
        return _business(await self._registry.business(calling_principal(), business))

    async def ListBusinesses(  # noqa: N802, D102
        self, request: businesses_pb2.ListBusinessesRequest, context: _Context
    ) -> businesses_pb2.ListBusinessesResponse:
        page, rest = await self._registry.list_businesses(
            calling_principal(),
            after=_page_start(request.page_token),
            limit=check_page_size(request.page_size),
        )
        return businesses_pb2.ListBusinessesResponse(
            businesses=[_business(business) for business in page], next_page_token=rest.hex()
        )

    async def AddNumber(  # noqa: N802, D102
        self, request: businesses_pb2.AddNumberRequest, context: _Context
    ) -> businesses_pb2.Business:
        business = parse_business_id(request.business_id)
        return _business(
            await self._registry.add_number(
                calling_principal(), business, request.phone_number, self._registrar
            )
        )

    async def RemoveNumber(  # noqa: N802, D102
        self, request: businesses_pb2.RemoveNumberRequest, context: _Context
    ) -> businesses_pb2.Business:
        business = parse_business_id(request.business_id)
        return _business(
            await self._registry.remove_number(
                calling_principal(), business, request.phone_number, self._remover
            )
        )

    async def DeleteBusiness(  # noqa: N802, D102
        self, request: businesses_pb2.DeleteBusinessRequest, context: _Context
    ) -> businesses_pb2.DeleteBusinessResponse:
        business = parse_business_id(request.business_id)
        await self._registry.delete_business(calling_principal(), business, self._remover)
        return businesses_pb2.DeleteBusinessResponse()

    async def ListAudit(  # noqa: N802, D102
        self, request: businesses_pb2.ListAuditRequest, context: _Context
    ) -> businesses_pb2.ListAuditResponse:
        page, rest = await self._registry.list_audit(
            calling_principal(),
            after=_page_start(request.page_token),
            limit=check_page_size(request.page_size),
        )
        entries = [
            businesses_pb2.AuditEntry(
                change_time=_timestamp(record.time_ms),
                actor=record.actor,
                action=record.action,
                business_id=record.business_id.hex(),
                object=record.object,
            )
            for record in page
        ]
        return businesses_pb2.ListAuditResponse(entries=entries, next_page_token=rest.hex())

    async def IssueToken(  # noqa: N802, D102
        self, request: businesses_pb2.IssueTokenRequest, context: _Context
    ) -> businesses_pb2.IssueTokenResponse:
        business = parse_business_id(request.business_id)
        token, token_id = await self._registry.issue_token(
            calling_principal(), business, request.label
        )
        return businesses_pb2.IssueTokenResponse(token=token, token_id=token_id)

    async def RevokeToken(  # noqa: N802, D102
        self, request: businesses_pb2.RevokeTokenRequest, context: _Context
    ) -> businesses_pb2.RevokeTokenResponse:
        business = parse_business_id(request.business_id)
        await self._registry.revoke_token(calling_principal(), business, request.token_id)
        return businesses_pb2.RevokeTokenResponse()


def _holds(policy: businesses_pb2.IdentityPolicy.ValueType) -> bool | None:
    """Whether it is to hold; None: not said. Raises `InvalidField`."""
    if policy not in _HOLDS:
        raise InvalidField("identity_policy", "ACCEPT_AND_TELL or HOLD_UNTIL_CONFIRMED")
    return _HOLDS[policy]


def _page_start(page_token: str) -> bytes:
    if not page_token:
        return b""
    try:
        return parse_business_id(page_token)
    except InvalidField:
        raise InvalidField("page_token", "the one of the response before, or empty") from None


def _milliseconds(duration: duration_pb2.Duration) -> int:
    return milliseconds_of(duration) or 0  # a malformed one is refused as one that is too short


def _timestamp(milliseconds: int) -> timestamp_pb2.Timestamp:
    seconds, rest = divmod(milliseconds, 1000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest * 1_000_000)


def _business(business: Business) -> businesses_pb2.Business:
    holds = business.hold_identity_changes
    seconds, rest = divmod(business.retention_ms, 1000)
    return businesses_pb2.Business(
        business_id=business.business_id.hex(),
        display_name=business.display_name,
        retention=duration_pb2.Duration(seconds=seconds, nanos=rest * 1_000_000),
        numbers=[
            businesses_pb2.BusinessNumber(
                phone_number=number.phone_number,
                account_id=number.account_id,
                identity_key=number.identity_key,
            )
            for number in business.numbers
        ],
        tokens=[_token(token) for token in business.tokens],
        create_time=_timestamp(business.create_ms),
        identity_policy=next(policy for policy, means in _HOLDS.items() if means is holds),
    )


def _token(token: TokenInfo) -> businesses_pb2.Token:
    return businesses_pb2.Token(
        token_id=token.token_id,
        label=token.label,
        create_time=_timestamp(token.create_ms),
        revoke_time=None if token.revoke_ms is None else _timestamp(token.revoke_ms),
    )
