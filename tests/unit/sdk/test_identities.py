"""The business client's identity calls, against an in-process gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import grpc
import grpc.aio
import pytest
from letterlock.business.client import BusinessClient
from letterlock.errors import InvalidRequest, SafetyNumberMismatch
from letterlock.v1 import identities_pb2, identities_pb2_grpc

from tests.harness.fakes_sdk import NUMBER, TOKEN, fail
from tests.harness.served import served

USER, USER_ID, DIGITS = "+4915112345679", "0123456789abcdef" * 2, "12345" * 12


class FakeIdentities(identities_pb2_grpc.IdentitiesServicer):
    """Answers DIGITS; says that it is busy as often as told."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.failing = 0

    async def GetSafetyNumber(self, request, context):  # type: ignore[no-untyped-def, override]
        self.asked.append(request)
        if self.failing:
            self.failing -= 1
            await fail(context, grpc.StatusCode.UNAVAILABLE, "DRAINING")
        return identities_pb2.SafetyNumber(user_id=USER_ID, digits=DIGITS)

    async def ConfirmIdentity(self, request, context):  # type: ignore[no-untyped-def, override]
        self.asked.append(request)
        if request.digits not in ("", DIGITS):
            await fail(context, grpc.StatusCode.FAILED_PRECONDITION, "SAFETY_NUMBER_MISMATCH")
        return identities_pb2.ConfirmIdentityResponse(user_id=USER_ID, released=2)


@asynccontextmanager
async def client_of(identities: FakeIdentities) -> AsyncIterator[BusinessClient]:
    async def no_sleep(seconds: float) -> None:
        assert seconds >= 0

    add = partial(identities_pb2_grpc.add_IdentitiesServicer_to_server, identities)
    async with (
        served(add) as target,
        BusinessClient(target, TOKEN, number=NUMBER, insecure=True, sleep=no_sleep) as client,
    ):
        yield client


async def test_a_user_is_named_by_number_or_id() -> None:
    identities = FakeIdentities()
    identities.failing = 1
    async with client_of(identities) as client:
        for user in (USER, USER_ID):
            assert (await client.safety_number(user)).digits == DIGITS
    by_number = identities_pb2.GetSafetyNumberRequest(business_number=NUMBER, phone_number=USER)
    by_id = identities_pb2.GetSafetyNumberRequest(business_number=NUMBER, user_id=USER_ID)
    assert identities.asked == [by_number, by_number, by_id]


async def test_digits_may_be_typed_in_groups() -> None:
    identities = FakeIdentities()
    async with client_of(identities) as client:
        typed = " ".join(["12345"] * 6) + "\n" + " ".join(["12345"] * 6)
        assert (await client.confirm_identity(USER_ID, digits=typed)).released == 2
        assert (await client.confirm_identity(USER, scanned=b"code")).released == 2
        with pytest.raises(SafetyNumberMismatch):
            await client.confirm_identity(USER_ID, digits="1" * 60)
    first, second, _ = identities.asked
    assert first == identities_pb2.ConfirmIdentityRequest(
        business_number=NUMBER, user_id=USER_ID, digits=DIGITS
    )
    assert second == identities_pb2.ConfirmIdentityRequest(
        business_number=NUMBER, phone_number=USER, scanned=b"code"
    )


async def test_exactly_one_thing_was_checked() -> None:
    identities = FakeIdentities()
    async with client_of(identities) as client:
        with pytest.raises(InvalidRequest) as caught:
            await client.confirm_identity(USER_ID)
        assert caught.value.field == "checked"
        with pytest.raises(InvalidRequest):
            await client.confirm_identity(USER_ID, digits=DIGITS, scanned=b"code")
    assert identities.asked == []
