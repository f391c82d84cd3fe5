"""Every Businesses call through its servicer: good, and each kind of bad input."""

import pytest
from google.protobuf import duration_pb2
from letterlock.v1 import businesses_pb2 as pb
from letterlockd.errors import Forbidden, InvalidField, LetterlockError, NotFound
from letterlockd.registry.principals import Principal
from letterlockd.rpc.businesses import BusinessesServicer
from letterlockd.rpc.caller import calling_as

from tests.unit.registry.conftest import NUMBER, OPERATOR, World, world

__all__ = ["world"]

UNKNOWN = "00" * 16


def duration(seconds: int, nanos: int = 0) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=seconds, nanos=nanos)


class Client:
    """Calls the servicer as somebody."""

    def __init__(self, world: World, principal: Principal = OPERATOR) -> None:
        self.servicer = BusinessesServicer(world.registry, world.registrar, world.remover)
        self.principal = principal

    async def __call__(self, method: str, request):
        with calling_as(self.principal):
            return await getattr(self.servicer, method)(request, None)


async def test_a_business_from_making_to_its_revoked_token(world: World) -> None:
    call = Client(world)
    made = await call("CreateBusiness", pb.CreateBusinessRequest(display_name="Acme"))
    assert made.retention.ToMilliseconds() == 30 * 86_400_000
    id_ = made.business_id
    added = await call("AddNumber", pb.AddNumberRequest(business_id=id_, phone_number=NUMBER))
    assert [number.phone_number for number in added.numbers] == [NUMBER]
    assert (len(added.numbers[0].account_id), len(added.numbers[0].identity_key)) == (16, 33)
    issued = await call("IssueToken", pb.IssueTokenRequest(business_id=id_, label="backend"))
    request = pb.RevokeTokenRequest(business_id=id_, token_id=issued.token_id)
    for _ in range(2):
        await call("RevokeToken", request)
    shown = await call("GetBusiness", pb.GetBusinessRequest(business_id=id_))
    (token,) = shown.tokens
    assert (token.token_id, token.label) == (issued.token_id, "backend")
    assert token.HasField("revoke_time")
    listed = await call("ListBusinesses", pb.ListBusinessesRequest())
    assert (list(listed.businesses), listed.next_page_token) == ([shown], "")


async def test_a_number_and_a_business_are_removed_and_the_audit_trail_says_so(
    world: World,
) -> None:
    call = Client(world)
    made = await call("CreateBusiness", pb.CreateBusinessRequest(display_name="Acme"))
    id_ = made.business_id
    added = await call("AddNumber", pb.AddNumberRequest(business_id=id_, phone_number=NUMBER))
    account = added.numbers[0].account_id
    left = await call("RemoveNumber", pb.RemoveNumberRequest(business_id=id_, phone_number=NUMBER))
    assert (left.business_id, list(left.numbers)) == (id_, [])
    assert world.remover.removed == [(account, NUMBER)]
    await call("DeleteBusiness", pb.DeleteBusinessRequest(business_id=id_))
    with pytest.raises(NotFound):
        await call("GetBusiness", pb.GetBusinessRequest(business_id=id_))
    first = await call("ListAudit", pb.ListAuditRequest(page_size=3))
    request = pb.ListAuditRequest(page_size=3, page_token=first.next_page_token)
    second = await call("ListAudit", request)
    entries = [*first.entries, *second.entries]
    assert sorted((entry.action, entry.object) for entry in entries) == [
        ("ADD_NUMBER", account.hex()),
        ("CREATE_BUSINESS", ""),
        ("DELETE_BUSINESS", ""),
        ("REMOVE_NUMBER", account.hex()),
    ]
    assert {(entry.actor, entry.business_id) for entry in entries} == {("operator", id_)}
    assert all(entry.HasField("change_time") for entry in entries)
    assert (len(second.entries), second.next_page_token) == (1, "")


async def test_what_an_update_does_not_name_stays(world: World) -> None:
    call = Client(world)
    hold, accept = pb.IDENTITY_POLICY_HOLD_UNTIL_CONFIRMED, pb.IDENTITY_POLICY_ACCEPT_AND_TELL
    made = await call("CreateBusiness", pb.CreateBusinessRequest(display_name="Acme"))
    assert made.identity_policy == accept
    id_ = made.business_id
    held = await call(
        "UpdateBusiness", pb.UpdateBusinessRequest(business_id=id_, identity_policy=hold)
    )
    assert (held.display_name, held.identity_policy) == ("Acme", hold)
    named = await call(
        "UpdateBusiness", pb.UpdateBusinessRequest(business_id=id_, display_name="New")
    )
    assert (named.display_name, named.identity_policy) == ("New", hold)
    shorter = await call(
        "UpdateBusiness", pb.UpdateBusinessRequest(business_id=id_, retention=duration(300))
    )
    assert (shorter.display_name, shorter.identity_policy) == ("New", hold)
    assert shorter.retention == duration(300)
    assert await call("GetBusiness", pb.GetBusinessRequest(business_id=id_)) == shorter
    request = pb.CreateBusinessRequest(display_name="Strict", identity_policy=hold)
    assert (await call("CreateBusiness", request)).identity_policy == hold


async def test_pages_follow_their_token(world: World) -> None:
    call = Client(world)
    for name in "abc":
        await call("CreateBusiness", pb.CreateBusinessRequest(display_name=name))
    first = await call("ListBusinesses", pb.ListBusinessesRequest(page_size=2))
    request = pb.ListBusinessesRequest(page_size=2, page_token=first.next_page_token)
    second = await call("ListBusinesses", request)
    ids = [b.business_id for page in (first, second) for b in page.businesses]
    assert (len(ids), ids, second.next_page_token) == (3, sorted(ids), "")


@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("CreateBusiness", pb.CreateBusinessRequest(), "display_name"),
        ("CreateBusiness", pb.CreateBusinessRequest(display_name="x" * 101), "display_name"),
        ("CreateBusiness", pb.CreateBusinessRequest(display_name="a\nb"), "display_name"),
        (
            "CreateBusiness",
            pb.CreateBusinessRequest(display_name="x", retention=duration(299)),
            "retention",
        ),
        (
            "CreateBusiness",
            pb.CreateBusinessRequest(display_name="x", retention=duration(2_592_000, 1_000_000)),
            "retention",
        ),
        (
            "CreateBusiness",
            pb.CreateBusinessRequest(display_name="x", retention=duration(-1)),
            "retention",
        ),
        (
            "CreateBusiness",
            pb.CreateBusinessRequest(display_name="x", retention=duration(300, 2_000_000_000)),
            "retention",
        ),
        (
            "CreateBusiness",
            pb.CreateBusinessRequest(display_name="x", identity_policy=3),
            "identity_policy",
        ),
        ("UpdateBusiness", pb.UpdateBusinessRequest(), "business_id"),
        (
            "UpdateBusiness",
            pb.UpdateBusinessRequest(business_id=UNKNOWN, retention=duration(299)),
            "retention",
        ),
        ("RemoveNumber", pb.RemoveNumberRequest(phone_number=NUMBER), "business_id"),
        ("RemoveNumber", pb.RemoveNumberRequest(business_id=UNKNOWN), "phone_number"),
        ("DeleteBusiness", pb.DeleteBusinessRequest(business_id="x"), "business_id"),
        ("ListAudit", pb.ListAuditRequest(page_size=1_001), "page_size"),
        ("ListAudit", pb.ListAuditRequest(page_token="x"), "page_token"),
        (
            "UpdateBusiness",
            pb.UpdateBusinessRequest(business_id=UNKNOWN, display_name=""),
            "display_name",
        ),
        (
            "UpdateBusiness",
            pb.UpdateBusinessRequest(business_id=UNKNOWN, identity_policy=3),
            "identity_policy",
        ),
        ("GetBusiness", pb.GetBusinessRequest(), "business_id"),
        ("GetBusiness", pb.GetBusinessRequest(business_id="AB" * 16), "business_id"),
        ("GetBusiness", pb.GetBusinessRequest(business_id="0" * 31), "business_id"),
        ("ListBusinesses", pb.ListBusinessesRequest(page_size=1_001), "page_size"),
        ("ListBusinesses", pb.ListBusinessesRequest(page_token="zz"), "page_token"),
        ("AddNumber", pb.AddNumberRequest(phone_number=NUMBER), "business_id"),
        ("AddNumber", pb.AddNumberRequest(business_id=UNKNOWN), "phone_number"),
        (
            "AddNumber",
            pb.AddNumberRequest(business_id=UNKNOWN, phone_number="030901820"),
            "phone_number",
        ),
        ("IssueToken", pb.IssueTokenRequest(business_id="x"), "business_id"),
        ("IssueToken", pb.IssueTokenRequest(business_id=UNKNOWN, label="x" * 101), "label"),
        ("RevokeToken", pb.RevokeTokenRequest(token_id="0" * 16), "business_id"),
        ("RevokeToken", pb.RevokeTokenRequest(business_id=UNKNOWN, token_id="x"), "token_id"),
    ],
)
async def test_bad_input_names_the_field(world: World, method: str, request_, field: str) -> None:
    before = await world.bytes_at_rest()
    with pytest.raises(InvalidField) as caught:
        await Client(world)(method, request_)
    assert caught.value.field == field
    assert await world.bytes_at_rest() == before


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetBusiness", pb.GetBusinessRequest(business_id=UNKNOWN)),
        ("UpdateBusiness", pb.UpdateBusinessRequest(business_id=UNKNOWN)),
        ("AddNumber", pb.AddNumberRequest(business_id=UNKNOWN, phone_number=NUMBER)),
        ("IssueToken", pb.IssueTokenRequest(business_id=UNKNOWN)),
        ("RevokeToken", pb.RevokeTokenRequest(business_id=UNKNOWN, token_id="0" * 16)),
    ],
)
@pytest.mark.parametrize(
    ("principal", "fault"), [(OPERATOR, NotFound), (Principal(b"\x01" * 16, "00" * 8), Forbidden)]
)
async def test_an_unknown_business(
    world: World, method: str, request_, principal: Principal, fault: type[LetterlockError]
) -> None:
    with pytest.raises(fault):
        await Client(world, principal)(method, request_)
    assert world.registrar.calls == []
