"""Bad input of the Identities service, field by field, before anything is asked of the gateway."""

from __future__ import annotations

from typing import Any

import pytest
from letterlock.v1 import identities_pb2 as pb
from letterlockd.errors import Forbidden, InvalidField
from letterlockd.model.ids import AccountId, BusinessId, Pseudonym
from letterlockd.model.sender import Sender
from letterlockd.records.v1 import jobs_pb2 as jobs
from letterlockd.registry.principals import Principal
from letterlockd.rpc.caller import calling_as
from letterlockd.rpc.identities import IdentitiesServicer

NUMBER, USER = "+4930901820", "+4915112345678"
USER_ID, DIGITS = "0123456789abcdef" * 2, "12345" * 12
BUSINESS = BusinessId(b"b" * 16)
PRINCIPAL = Principal(BUSINESS, "00" * 8)


class Senders:
    async def sender(self, principal: Principal, business_number: str) -> Sender:
        if business_number != NUMBER:
            raise Forbidden("not this number")
        return Sender(BUSINESS, AccountId(b"a" * 16), NUMBER, 1)


class Gateway:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def find(self, sender: Sender, phone_number: str) -> Pseudonym:
        self.asked.append(phone_number)
        return Pseudonym(bytes.fromhex(USER_ID))

    async def safety_number(self, sender: Sender, user: Pseudonym) -> jobs.IdentityChecked:
        self.asked.append(user)
        return jobs.IdentityChecked(digits=DIGITS, scannable=b"code", unconfirmed=True)

    async def confirm(self, sender: Sender, user: Pseudonym, checked: jobs.CheckIdentity) -> int:
        self.asked.append((user, checked))
        return 7


class Client:
    def __init__(self) -> None:
        self.gateway = Gateway()
        self.servicer = IdentitiesServicer(Senders(), self.gateway)  # type: ignore[arg-type]

    async def __call__(self, request: Any) -> Any:
        is_get = isinstance(request, pb.GetSafetyNumberRequest)
        with calling_as(PRINCIPAL):
            method = self.servicer.GetSafetyNumber if is_get else self.servicer.ConfirmIdentity
            return await method(request, None)


async def test_what_is_good_is_asked() -> None:
    call, user = Client(), Pseudonym(bytes.fromhex(USER_ID))
    shown = await call(pb.GetSafetyNumberRequest(business_number=NUMBER, phone_number=USER))
    assert shown == pb.SafetyNumber(
        user_id=USER_ID, digits=DIGITS, scannable=b"code", unconfirmed=True
    )
    request = pb.ConfirmIdentityRequest(business_number=NUMBER, user_id=USER_ID)
    request.digits = DIGITS
    assert await call(request) == pb.ConfirmIdentityResponse(user_id=USER_ID, released=7)
    request.scanned = b"x" * 256
    await call(request)
    assert call.gateway.asked == [
        USER,
        user,
        (user, jobs.CheckIdentity(digits=DIGITS)),
        (user, jobs.CheckIdentity(scanned=b"x" * 256)),
    ]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "user"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": USER_ID.upper()}, "user_id"),
        ({"user_id": USER_ID[:-1]}, "user_id"),
        ({"phone_number": ""}, "phone_number"),
        ({"phone_number": "0151"}, "phone_number"),
    ],
)
async def test_a_malformed_user(fields: dict[str, str], field: str) -> None:
    for request in (
        pb.GetSafetyNumberRequest(business_number=NUMBER, **fields),
        pb.ConfirmIdentityRequest(business_number=NUMBER, digits=DIGITS, **fields),
    ):
        call = Client()
        with pytest.raises(InvalidField) as caught:
            await call(request)
        assert caught.value.field == field
        assert call.gateway.asked == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "checked"),
        ({"digits": ""}, "digits"),
        ({"digits": DIGITS[:-1]}, "digits"),
        ({"digits": DIGITS + "1"}, "digits"),
        ({"digits": "x" * 60}, "digits"),
        ({"digits": "\N{ARABIC-INDIC DIGIT ONE}" * 60}, "digits"),
        ({"scanned": b""}, "scanned"),
        ({"scanned": bytes(257)}, "scanned"),
    ],
)
async def test_a_malformed_confirmation(fields: dict[str, Any], field: str) -> None:
    call = Client()
    with pytest.raises(InvalidField) as caught:
        await call(pb.ConfirmIdentityRequest(business_number=NUMBER, user_id=USER_ID, **fields))
    assert caught.value.field == field
    assert caught.value.limit == "60 digits" or field != "digits"
    assert call.gateway.asked == []


async def test_another_businesss_number() -> None:
    for request in (
        pb.GetSafetyNumberRequest(business_number="+4930901821", user_id=USER_ID),
        pb.ConfirmIdentityRequest(business_number="+4930901821", user_id=USER_ID, digits=DIGITS),
    ):
        call = Client()
        with pytest.raises(Forbidden):
            await call(request)
        assert call.gateway.asked == []
